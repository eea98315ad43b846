"""Evaluation within training: the command counts the same, and further sets are counted under their names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from helpers.commands import Refuses, evaluate, train
from helpers.images import save_image, save_images
from helpers.runs import events
from resnext_train.checkpoint import checkpoint_file

RECIPE = """
model: {arch: resnext14_2x4d, width: 0.25}
data: {workers: 0}
augment: {size: 32}
train: {epochs: 2, batch_size: 16, micro_batch: 8, precision: fp32}
optimizer: {lr: 0.05}
schedule: {warmup: 0}
eval: {resize: 36, crop: 32, batch_size: 4}
"""
COUNTS = ("count", "top1_correct", "top5_correct", "top1", "top5", "loss", "unreadable")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    save_images(tmp_path / "data" / "train", 32)
    save_images(tmp_path / "data" / "val", 13)
    save_images(tmp_path / "more" / "val", 7)
    (tmp_path / "r.yaml").write_text(RECIPE)
    return tmp_path


def words(root: Path, *overrides: str) -> list[str]:
    run = ["--config", str(root / "r.yaml"), "--out", str(root / "run"), f"data.root={root / 'data'}"]
    return [*run, *overrides]


def counted(root: Path, *arguments: str) -> dict[str, Any]:
    ckpt = ["--ckpt", str(root / "run" / "checkpoints" / "last.pt"), "--json", str(root / "result.json")]
    assert evaluate([*ckpt, *arguments]) == 0
    result = json.loads((root / "result.json").read_text())
    return {key: result[key] for key in COUNTS}


@pytest.mark.parametrize("protocol", ["center", "ten_crop", "multi_scale"])
def test_the_command_counts_what_training_counted(protocol: str, root: Path) -> None:
    assert train(words(root, f"eval.protocol={protocol}", "eval.scales=[32,40]", "train.epochs=1")) == 0
    last = json.loads((root / "run" / "summary.json").read_text())["last"]
    assert {key: last[key] for key in COUNTS} == counted(root)


def test_further_sets_are_counted_and_logged_under_their_names(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(words(root, f"eval.also={{v2: {root / 'more'}, own: {root / 'data' / 'val'}}}")) == 0
    epochs = events(root / "run", "epoch")
    assert [list(event["also"]) for event in epochs] == [["v2", "own"]] * 2
    last = json.loads((root / "run" / "summary.json").read_text())["last"]
    assert last["also"] == epochs[-1]["also"]
    for name, folder in (("v2", root / "more"), ("own", root / "data" / "val")):
        assert {key: last["also"][name][key] for key in COUNTS} == counted(root, "--data", str(folder))
    assert last["also"]["v2"]["count"] == 7
    assert last["also"]["own"]["top1_correct"] == last["top1_correct"]
    best = checkpoint_file.load(root / "run" / "checkpoints" / "best.pt")["checkpointer"]["best"]
    assert best["also"]["v2"]["count"] == 7
    assert capsys.readouterr().out.count("; v2 accuracy ") == 2
    curves = EventAccumulator(str(root / "run"))
    curves.Reload()
    assert [point.step for point in curves.Scalars("v2/accuracy")] == [2, 4]


def test_a_further_set_that_cannot_be_used_is_refused_before_training(root: Path, refuses: Refuses) -> None:
    save_image(root / "odd" / "val" / "yak" / "0.png")
    for path, word in (("odd", "yak"), ("none", "none")):
        error = refuses(train, *words(root, f"eval.also={{v2: {root / path}}}"))
        assert "eval.also: v2: " in error
        assert word in error
    assert "eval.also: val " in refuses(train, *words(root, f"eval.also={{val: {root / 'more'}}}"))
    assert not (root / "run").exists()
