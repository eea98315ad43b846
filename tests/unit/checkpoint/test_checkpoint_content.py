"""Checkpoints with the right checksum and odd content, as another program or version may write them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from helpers.commands import Refuses, train
from helpers.runs import RUN, equal_runs, state_of
from resnext_train.checkpoint import checkpoint_file

Content = dict[str, Any]
MISSING = object()


def put(path: str, value: object) -> Callable[[Content], None]:
    """A change that sets, or removes, what is at `path`; numbers there are keys."""

    def change(content: Content) -> None:
        *places, last = [int(part) if part.isdecimal() else part for part in path.split("/")]
        inner: Any = content
        for place in places:
            inner = inner[place]
        if value is MISSING:
            del inner[last]
        else:
            inner[last] = value

    return change


ODD: dict[str, Callable[[Content], None]] = {
    **{f"without {part}": put(part, MISSING) for part in ("plan", "meter", "optimizer", "rng", "schedule", "skipped")},
    **{f"without {part}": put(part, MISSING) for part in ("scaler", "model", "recipe", "images", "version")},
    "no rng": put("rng", torch.zeros(5056)),
    "a short rng": put("rng", torch.zeros(5055, dtype=torch.uint8)),
    "a wrong rng": put("rng", torch.full((5056,), 255, dtype=torch.uint8)),
    "an unknown key of progress": put("progress/phase", 1),
    "a step that is text": put("progress/step", "6"),
    "a step below 0": put("progress/step", -1),
    "a step that is a tensor": put("progress/step", torch.tensor(6)),
    "no steps in an epoch": put("plan/steps_per_epoch", 0),
    "text for weights": put("model/fc.weight", "text"),
    "sparse weights": put("model/fc.weight", torch.zeros(4, 128).to_sparse()),
    "text for momentum": put("optimizer/state/0", {"momentum_buffer": "text"}),
    "momentum of another shape": put("optimizer/state/0", {"momentum_buffer": torch.zeros(3)}),
    # One number for all elements: an optimizer that writes to them writes beyond it.
    "momentum without memory": put("optimizer/state/0", {"momentum_buffer": torch.zeros(1).expand(16, 3, 7, 7)}),
    "complex weights": put("model/fc.weight", torch.zeros(4, 128, dtype=torch.complex64)),
    "a step of an optimizer below 0": put("optimizer/state/0", {"step": torch.tensor(-1.0)}),
    "a step of an optimizer that is no number": put("optimizer/state/0", {"step": torch.tensor(torch.nan)}),
    "an average of fewer updates than none": lambda content: content.update(
        ema={"updates": torch.tensor(-1), "weights": content["model"]}
    ),
    "open within an epoch": lambda content: content["progress"].update(step=5, epoch_is_open=True),
    "too few groups": put("optimizer/param_groups/1", MISSING),
    "a number of text for a parameter": put("optimizer/param_groups/0/params", ["0"]),
    "an evaluation without a count": put("checkpointer/best/count", MISSING),
    "a best that is text": put("checkpointer/best", "epoch 2"),
    "half a scaler": put("scaler", {"scale": 1.0}),
    "a schedule of another kind": put("schedule", {"lr": 0.1}),
    "a meter of lists": put("meter/epoch", [1.0, 2, 3, 0]),
    "classes of numbers": put("classes", [1, 2, 3, 4]),
}


@pytest.mark.slow
@pytest.mark.parametrize("change", ODD.values(), ids=ODD)
def test_odd_content_is_passed_over_for_the_checkpoint_before(
    change: Callable[[Content], None], whole: Path, tmp_path: Path, refuses: Refuses
) -> None:
    """Refused in one sentence before anything changes. Only what is unfit for the network is not passed over."""
    out = tmp_path / "run"
    checkpoints = out / "checkpoints"
    checkpoints.mkdir(parents=True)
    (out / "recipe.yaml").write_text((whole / "recipe.yaml").read_text())
    content = copy.deepcopy(torch.load(whole / "checkpoints" / "last.pt", weights_only=True))
    change(content)
    checkpoint_file.save(content, checkpoints / "last.pt")
    before = (checkpoints / "last.pt").read_bytes()
    told = refuses(train, *RUN, "--out", str(out))
    assert "checkpoint" in told or "last.pt" in told
    assert (checkpoints / "last.pt").read_bytes() == before
    assert not (out / "log.jsonl").exists()


def test_the_checkpoint_before_an_odd_one_continues(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert train([*RUN, "--out", str(out), "checkpoint.every_steps=2"]) == 0
    last = out / "checkpoints" / "last.pt"
    content = torch.load(last, weights_only=True)
    put("progress/phase", 1)(content)
    checkpoint_file.save(content, last)
    capsys.readouterr()
    assert train([*RUN, "--out", str(out), "checkpoint.every_steps=2"]) == 0
    assert "progress.phase" in capsys.readouterr().err
    assert equal_runs(out, whole)
    assert state_of(out) == {"status": "done", "step": 6}
