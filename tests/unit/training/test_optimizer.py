from __future__ import annotations

import torch

from resnext_train.config import ModelSection, RmspropSection, SgdSection
from resnext_train.models.build_model import build_model
from resnext_train.training.optimizer import build_optimizer


def test_decay_is_chosen_by_dimension_not_by_name() -> None:
    model = build_model(ModelSection(arch="resnext14_2x4d"), 4)
    for decay_1d, expected in ((True, [1e-4, 1e-4]), (False, [1e-4, 0.0])):
        optimizer = build_optimizer(SgdSection(decay_1d=decay_1d), model)
        matrices, vectors = optimizer.param_groups
        assert [matrices["weight_decay"], vectors["weight_decay"]] == expected
        assert {p.ndim for p in matrices["params"]} == {2, 4}
        assert {p.ndim for p in vectors["params"]} == {1}
        assert len(matrices["params"]) + len(vectors["params"]) == len(list(model.parameters()))


def test_a_first_step_that_loss_scaling_skips_leaves_clean_momentum() -> None:
    """The fused update would otherwise continue from uninitialised memory."""
    module = torch.nn.Linear(64, 64)
    optimizer, scaler = build_optimizer(SgdSection(), module), torch.amp.GradScaler("cpu")
    before = module.weight.detach().clone()
    for gradient in (torch.inf, 1.0):
        scaler.scale(torch.zeros(()))  # makes the scale, as the first loss does
        for p in module.parameters():
            p.grad = torch.full_like(p, gradient) * scaler.get_scale()
        scaler.step(optimizer)
        scaler.update()
        if gradient == torch.inf:
            assert torch.equal(module.weight, before)
    momentum = optimizer.state[module.weight]["momentum_buffer"]
    torch.testing.assert_close(momentum, 1 + 1e-4 * before)


def test_two_updates_are_torch_7s() -> None:
    """optim.sgd of Torch 7 with Nesterov momentum and dampening 0, by hand, in fp64."""
    weight = torch.nn.Parameter(torch.tensor([[2.0]], dtype=torch.float64))
    module = torch.nn.Module()
    module.register_parameter("w", weight)
    optimizer = build_optimizer(SgdSection(lr=0.1, weight_decay=0.5), module)
    x, v = 2.0, None
    for gradient in (1.0, -3.0):
        weight.grad = torch.tensor([[gradient]], dtype=torch.float64)
        optimizer.step()
        d = gradient + 0.5 * x
        v = d if v is None else 0.9 * v + d
        x -= 0.1 * (d + 0.9 * v)
        assert abs(weight.item() - x) < 1e-14


def test_rmsprop_is_the_textbooks() -> None:
    """Two updates by hand in fp64: mean of squares from 0, epsilon beside the root, momentum over the quotient."""
    weight = torch.nn.Parameter(torch.tensor([[2.0]], dtype=torch.float64))
    module = torch.nn.Module()
    module.register_parameter("w", weight)
    optimizer = build_optimizer(RmspropSection(name="rmsprop", lr=0.045, weight_decay=0.5), module)
    x, square, v = 2.0, 0.0, 0.0
    for gradient in (1.0, -3.0):
        weight.grad = torch.tensor([[gradient]], dtype=torch.float64)
        optimizer.step()
        g = gradient + 0.5 * x
        square = 0.9 * square + 0.1 * g * g
        v = 0.9 * v + g / (square**0.5 + 1.0)
        x -= 0.045 * v
        assert abs(weight.item() - x) < 1e-14
