"""Runs whose crops grow and whose images are repeated."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers.commands import Refuses, train
from helpers.runs import RUN, events
from resnext_train.config import load_recipe
from resnext_train.models.complexity import measure

GROWING = [
    *RUN,
    *("schedule.name=step", "log.every=1"),
    *("augment.start_size=32", "augment.size=96", "augment.growth=[0, 2]", "augment.repeats=3"),
]


def test_a_run_says_how_its_crops_grow_and_what_they_cost(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train([*GROWING, "--out", str(tmp_path / "run")]) == 0
    shown = capsys.readouterr()
    assert "crops         32 px, 64 from epoch 2; each of 18 images 3 times an epoch" in shown.out
    assert "only grow to 64 of 96 pixels" in shown.err
    model = load_recipe("smoke.yaml", GROWING[2:]).model
    operations = [step["flops_per_s"] / step["images_per_s"] for step in events(tmp_path / "run", "step")]
    sizes = [size for size in (32, 64) for _ in range(3)]
    assert operations == pytest.approx([6 * measure(model, 4, size).multiply_adds for size in sizes])


def test_every_size_of_crops_must_be_trainable(tmp_path: Path, refuses: Refuses) -> None:
    small = ["augment.start_size=8", "--dry-run", "--out", str(tmp_path / "run")]
    assert "images of 8 × 8 pixels are too small" in refuses(train, *GROWING, *small)
