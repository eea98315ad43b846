"""fp16's loss scale is found by trying: a gradient that overflows on the way is no fault."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from helpers.commands import train
from helpers.ranks import single
from helpers.runs import RUN, events
from helpers.steps import NETWORK, step_images, train_step
from resnext_train.compute.precision import Precision
from resnext_train.config import SgdSection
from resnext_train.distributed.dist_context import DistContext
from resnext_train.models.build_model import build_model
from resnext_train.training.optimizer import FiniteOptimizer, build_optimizer


def scaled_steps(context: DistContext, scale: float, largest: float, spoilt: int | None = None) -> Any:
    """Six steps whose gradient overflows at scales above `largest`, and of which one has a loss that is no number.

    Returns the overflows, the faults with their number in a row, and the last scale.
    """
    model = build_model(NETWORK, 4, seed=1).to(memory_format=torch.channels_last)
    step = train_step(model, build_optimizer(SgdSection(), model), context)
    scaler = torch.amp.GradScaler("cpu", init_scale=scale)
    step.optimizer.scaler = scaler
    model.get_parameter("fc.weight").register_hook(lambda g: g * (1e39 if scaler.get_scale() > largest else 1.0))
    for n in range(6):
        micro_batches = step_images(20, n)
        if n == spoilt:
            maps = micro_batches[3].color_maps
            assert maps is not None
            maps[1, 3] = float("nan")
        step(iter(micro_batches), n, 20, lr=0.01)
    faults = [(skipped.step, skipped.in_a_row) for skipped in step.read_metrics()]
    return step.watch.overflows, faults, step.loss_scale()


@pytest.mark.slow
def test_only_a_scale_that_cannot_be_the_reason_makes_an_overflow_a_fault() -> None:
    assert single(scaled_steps, 32.0, 4.0) == ([0, 1, 2], [], 4.0)
    # At scales 8, 4 and 2 they may be the scale's; at 1, 1/2 and 1/4 they are the network's.
    assert single(scaled_steps, 8.0, 0.0) == ([0, 1, 2], [(3, 1), (4, 2), (5, 3)], 2.0**-3)
    # A loss that is no number is a fault at any scale.
    assert single(scaled_steps, 32.0, 8.0, 1) == ([0], [(1, 1)], 8.0)


def test_a_run_that_looks_for_its_loss_scale_has_no_faults(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def overflows(self: FiniteOptimizer, loss: torch.Tensor) -> None:
        backward(self, loss * (1e39 if self.scaler.get_scale() > 2 else 1.0))

    backward = FiniteOptimizer.backward
    monkeypatch.setattr(FiniteOptimizer, "backward", overflows)
    monkeypatch.setattr(Precision, "scaler", lambda self: torch.amp.GradScaler("cpu", init_scale=8.0))
    out = tmp_path / "run"
    assert train([*RUN, "--out", str(out), "train.max_skipped=0", "log.every=3"]) == 0
    assert events(out, "skipped") == []
    assert [(e["step"], e["skipped"], e["loss_scale"]) for e in events(out, "scale")] == [(3, [1, 2], 2.0)]
    assert [e["loss_scale"] for e in events(out, "step")] == [2.0, 2.0]
    assert json.loads((out / "summary.json").read_text())["skipped_steps"] == 0
    assert "skipped" not in capsys.readouterr().err
