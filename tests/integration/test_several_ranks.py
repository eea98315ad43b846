"""Commands on several ranks: what each of them reads is counted once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from helpers.commands import evaluate
from helpers.runs import events, run_module

pytestmark = pytest.mark.slow


def test_two_processes_count_what_either_of_them_skips(image_root: Path, tmp_path: Path) -> None:
    for bad in (image_root / "train" / "dog" / "5.JPEG", image_root / "val" / "cat" / "1.JPEG"):
        bad.write_bytes(b"")
    arguments = ["--config", "smoke.yaml", "data.source=folder", f"data.root={image_root}", "data.on_bad_image=skip"]
    arguments += ["data.workers=1", "augment.size=32", "eval.resize=36", "eval.crop=32", "eval.batch_size=4"]
    arguments += ["train.batch_size=8", "train.micro_batch=4", "train.epochs=2", "model.arch=resnext14_2x4d"]
    run_module("train", *arguments, "log.tensorboard=false", "--out", str(tmp_path / "run"), processes=2)
    epochs = events(tmp_path / "run", "epoch")
    assert [(e["train_unreadable"], e["val_unreadable"], e["val_count"]) for e in epochs] == [(1, 1, 8), (1, 1, 8)]
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["unreadable"] == 2


def test_any_number_of_processes_counts_each_image_of_listed_classes_once(whole: Path, tmp_path: Path) -> None:
    one, two = tmp_path / "one.json", tmp_path / "two.json"
    (tmp_path / "classes.txt").write_text("class_0003\nclass_0001\n")
    arguments = ["--ckpt", str(whole / "checkpoints" / "last.pt"), f"eval.classes={tmp_path / 'classes.txt'}"]
    run_module("eval", *arguments, "--json", str(two), processes=2)
    assert evaluate([*arguments, "--json", str(one)]) == 0
    results = [json.loads(path.read_text()) for path in (one, two)]
    assert 0 < results[0]["count"] < 37
    for key in ("count", "top1_correct", "top5_correct", "protocol"):
        assert results[0][key] == results[1][key]
    assert results[1]["loss"] == pytest.approx(results[0]["loss"], rel=1e-6)
