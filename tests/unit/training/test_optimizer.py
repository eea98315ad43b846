from __future__ import annotations

import io
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from resnext_train.config import (
    AdamwSection,
    LambSection,
    ModelSection,
    OptimizerSection,
    RmspropSection,
    SgdSection,
)
from resnext_train.errors import InputError
from resnext_train.models.build_model import build_model
from resnext_train.training.optimizer import FiniteOptimizer, build_optimizer

ADAMW = AdamwSection(name="adamw", lr=0.01, weight_decay=0.05, beta2=0.99)
LAMB = LambSection(name="lamb", lr=0.01, weight_decay=0.02)
SECTIONS: list[OptimizerSection] = [SgdSection(), RmspropSection(name="rmsprop", lr=0.01), ADAMW, LAMB]
BY_NAME = pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.name)


def small_network() -> nn.Module:
    """Kernels, a matrix and vectors, of which BatchNorm's begin as ones and zeros."""
    torch.manual_seed(3)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(32, 5)).double()


def hold_gradients(model: nn.Module, number: int, factor: float = 1.0) -> None:
    generator = torch.Generator().manual_seed(number)
    for p in model.parameters():
        p.grad = factor * torch.randn(p.shape, generator=generator, dtype=torch.float64)


def finite(model: nn.Module, section: OptimizerSection, clip_norm: float | None = None) -> FiniteOptimizer:
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    return FiniteOptimizer(model, build_optimizer(section, model), scaler, clip_norm)


def all_bits(model: nn.Module, optimizer: FiniteOptimizer) -> dict[str, Tensor]:
    """Weights and the optimizer's whole state."""
    state = optimizer.state_dict()["state"].items()
    held = {f"{number}/{name}": tensor for number, tensors in state for name, tensor in tensors.items()}
    return {name: t.detach().clone() for name, t in {**dict(model.named_parameters()), **held}.items()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    """Whether all bits are equal, the sign of a zero too."""
    return a.keys() == b.keys() and all(t.numpy().tobytes() == b[name].numpy().tobytes() for name, t in a.items())


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


@pytest.mark.parametrize("decay_1d", [True, False])
@pytest.mark.parametrize("clip_norm", [None, 1.0])
@pytest.mark.parametrize("section", [ADAMW, LAMB], ids=lambda section: section.name)
def test_twenty_updates_are_those_of_torch_and_timm(
    section: OptimizerSection, clip_norm: float | None, decay_1d: bool
) -> None:
    """In fp64. timm clips to norm 1 by itself; torch and this tool divide by the norm + 1e-6."""
    model, other = small_network(), small_network()
    kernels = [p for p in other.parameters() if p.ndim > 1]
    vectors = [p for p in other.parameters() if p.ndim == 1]
    decay = section.weight_decay
    groups: Any = [{"params": kernels}, {"params": vectors, "weight_decay": decay if decay_1d else 0.0}]
    if section is LAMB:
        lamb = pytest.importorskip("timm.optim.lamb").Lamb
        theirs = lamb(groups, 0.01, weight_decay=decay, max_grad_norm=clip_norm)
    else:
        theirs = torch.optim.AdamW(groups, 0.01, (0.9, 0.99), weight_decay=decay, foreach=False, fused=False)
    ours = finite(model, section.model_copy(update={"decay_1d": decay_1d}), clip_norm)
    for step in range(20):
        hold_gradients(model, step, 10.0**-step)
        hold_gradients(other, step, 10.0**-step)
        if section is not LAMB and clip_norm:
            nn.utils.clip_grad_norm_(other.parameters(), clip_norm)
        lr = 0.01 / (1 + step)
        for group in theirs.param_groups:
            group["lr"] = lr
        ours.step(lr, torch.zeros(()))
        theirs.step()
    tolerance = 1e-13 if clip_norm is None or section is not LAMB else 1e-7
    for a, b in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=tolerance)


@BY_NAME
@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("bad", [torch.inf, torch.nan])
def test_a_skipped_step_changes_no_bit_of_any_state(section: OptimizerSection, scaled: bool, bad: float) -> None:
    """The first one, and one after a good step; with and without loss scaling, which has its own steps to skip."""
    model = small_network()
    optimizer = finite(model, section, clip_norm=1.0)
    if scaled:
        optimizer.scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
        optimizer.scaler.scale(torch.zeros(()))  # makes the scale, as the first loss does
    states = [all_bits(model, optimizer)]
    for step, spoilt in enumerate([True, False, True]):
        hold_gradients(model, step)
        if spoilt:
            next(model.parameters()).grad[0, 0, 0, 0] = bad  # type: ignore[index]
        assert optimizer.step(0.1, torch.zeros(())).item() is not spoilt
        states.append(all_bits(model, optimizer))
    assert same(states[0], states[1])
    assert same(states[2], states[3])
    assert not any(torch.equal(t, states[2][name]) for name, t in states[1].items())
    assert {t.item() for name, t in states[3].items() if name.endswith("/step")} <= {1.0}


@BY_NAME
def test_a_stored_optimizer_continues_to_the_same_bits(section: OptimizerSection) -> None:
    model = small_network()
    optimizer = finite(model, section)
    for step in range(2):
        hold_gradients(model, step)
        optimizer.step(0.1, torch.zeros(()))
    stored = io.BytesIO()
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, stored)
    stored.seek(0)
    content = torch.load(stored, weights_only=True)
    other = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(32, 5)).double()
    other.load_state_dict(content["model"])
    continued = finite(other, section)
    continued.load_state_dict(content["optimizer"])
    assert continued.state_dict()["param_groups"] == optimizer.state_dict()["param_groups"], "the last learning rate"
    for step in (2, 3):
        for network, own in ((model, optimizer), (other, continued)):
            hold_gradients(network, step)
            own.step(0.1, torch.zeros(()))
    assert same(all_bits(model, optimizer), all_bits(other, continued))
    content["optimizer"]["state"][0]["exp_avg"] = torch.zeros(3)
    with pytest.raises(InputError, match="of other parameters"):
        continued.load_state_dict(content["optimizer"])
