"""Either memory layout trains the same network, and a run may change from one to the other."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
import torch

from helpers.commands import evaluate, train
from helpers.runs import RUN, events
from helpers.steps import NETWORK
from resnext_train.config import SgdSection
from resnext_train.models.build_model import build_model
from resnext_train.training.optimizer import FiniteOptimizer, build_optimizer


def test_an_optimizer_takes_the_state_of_another_layout() -> None:
    """The fused step reads weights and momentum in the order of memory, whatever their strides."""

    def optimizer(memory_format: torch.memory_format) -> tuple[torch.nn.Module, FiniteOptimizer]:
        model = build_model(NETWORK, 4, seed=1).double().to(memory_format=memory_format)
        return model, FiniteOptimizer(model, build_optimizer(SgdSection(), model), torch.amp.GradScaler(enabled=False))

    def step(model: torch.nn.Module, own: FiniteOptimizer, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        for parameter in model.parameters():
            gradient = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.grad = torch.empty_like(parameter).copy_(gradient)
        own.step(0.1, torch.tensor(True))

    model, own = optimizer(torch.contiguous_format)
    step(model, own, 1)
    other, continued = optimizer(torch.channels_last)
    other.load_state_dict(model.state_dict())
    continued.load_state_dict(copy.deepcopy(own.state_dict()))
    for one, opt in ((model, own), (other, continued)):
        step(one, opt, 2)
    for name, weights in model.state_dict().items():
        assert torch.equal(weights, other.state_dict()[name]), name


def test_a_contiguous_run_evaluates_as_the_command_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bool] = []

    def forward(self: torch.nn.Conv2d, x: torch.Tensor) -> torch.Tensor:
        seen.append(x.is_contiguous() and self.weight.is_contiguous())
        return convolution(self, x)

    convolution = torch.nn.Conv2d.forward
    out, result = tmp_path / "run", tmp_path / "result.json"
    with monkeypatch.context() as patched:
        patched.setattr(torch.nn.Conv2d, "forward", forward)
        assert train([*RUN, "--out", str(out), "train.layout=contiguous", "train.max_steps=1", "log.every=1"]) == 0
    assert all(seen[1:]), "images, weights, and all between"
    assert evaluate(["--ckpt", str(out), "--json", str(result)]) == 0
    assert json.loads(result.read_text())["loss"] == events(out, "epoch")[-1]["val_loss"]
    assert events(out, "start")[0]["layout"] == "contiguous"
