"""Runs whose crops grow, whose images are repeated and whose pixels are erased."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from helpers.commands import Refuses, train
from helpers.ranks import run_command
from helpers.runs import RUN, equal_runs, events
from resnext_train.config import load_recipe
from resnext_train.models.complexity import measure

GROWING = [
    *RUN,
    *("schedule.name=step", "log.every=1"),
    *("augment.start_size=32", "augment.size=96", "augment.growth=[0, 2]", "augment.repeats=3"),
    *("erase.probability=0.5", "erase.value=pixel", "erase.count=2"),
]


@pytest.mark.slow
def test_a_run_is_the_same_on_two_ranks_and_after_it_was_resumed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.set_num_threads(1)
    whole, resumed, two = (tmp_path / name for name in ("whole", "resumed", "two"))
    assert train([*GROWING, "--out", str(whole)]) == 0
    shown = capsys.readouterr()
    assert "crops         32 px, 64 from epoch 2; each image 3 times an epoch" in shown.out
    assert "only grow to 64 of 96 pixels" in shown.err
    run_command(train, 2, *GROWING, "--out", str(two))
    assert equal_runs(whole, two)
    assert train([*GROWING, "--out", str(resumed), "train.max_steps=4"]) == 0
    last = resumed / "checkpoints" / "last.pt"
    assert train([*GROWING, "--out", str(resumed), "--resume", str(last)]) == 0
    weights = [events(run, "end")[-1]["weights_sha256"] for run in (whole, resumed)]
    assert weights[0] == weights[1]
    model = load_recipe("smoke.yaml", GROWING[2:]).model
    operations = [step["flops_per_s"] / step["images_per_s"] for step in events(whole, "step")]
    sizes = [size for size in (32, 64) for _ in range(3)]
    assert operations == pytest.approx([6 * measure(model, 4, size).multiply_adds for size in sizes])


def test_every_size_of_crops_must_be_trainable(tmp_path: Path, refuses: Refuses) -> None:
    small = ["augment.start_size=8", "--dry-run", "--out", str(tmp_path / "run")]
    assert "images of 8 × 8 pixels are too small" in refuses(train, *GROWING, *small)
