"""Runs on several ranks, without torchrun: each image is read and counted once, whatever their number."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from helpers.commands import evaluate, train
from helpers.ranks import run_command
from helpers.runs import RUN, events
from helpers.shared import made_once

pytestmark = pytest.mark.slow


@pytest.fixture(scope="session")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three epochs on two processes."""
    return made_once(tmp_path_factory, "two", lambda out: run_command(train, 2, *THREE_EPOCHS, "--out", str(out)))


THREE_EPOCHS = [*RUN, "log.every=1", "checkpoint.keep=9", "train.epochs=3"]


@pytest.mark.parametrize("processes", [1, 3])
def test_a_run_continues_on_another_number_of_processes(two: Path, tmp_path: Path, processes: int) -> None:
    """Stopped on 2 processes, continued on another number, and back: the same images, at the same learning rate.

    Losses are compared for the first step after each change: from then on the last bits of sums make themselves felt.
    """
    other, back = tmp_path / "other", tmp_path / "back"
    for out, number, checkpoint in (
        (other, processes, two / "checkpoints" / "epoch_0001.pt"),
        (back, 2, other / "checkpoints" / "epoch_0002.pt"),
    ):
        run_command(train, number, *THREE_EPOCHS, "--out", str(out), "--resume", str(checkpoint))
    steps = {run: {e["step"]: e for e in events(run, "step")} for run in (two, other, back)}
    assert steps[other].keys() == {4, 5, 6, 7, 8, 9}
    assert [steps[other][n]["lr"] for n in steps[other]] == [steps[two][n]["lr"] for n in steps[other]]
    assert steps[other][4]["loss"] == pytest.approx(steps[two][4]["loss"], rel=1e-6)
    assert steps[back][7]["loss"] == pytest.approx(steps[other][7]["loss"], rel=1e-6)
    assert [e["val_count"] for run in (two, other, back) for e in events(run, "epoch")] == [37] * 6
    seen = [torch.load(r / "checkpoints/last.pt", weights_only=True)["meter"]["run"]["seen"] for r in steps]
    assert seen == [9 * 16] * 3


def test_two_processes_count_what_either_of_them_skips(image_root: Path, tmp_path: Path) -> None:
    for bad in (image_root / "train" / "dog" / "5.JPEG", image_root / "val" / "cat" / "1.JPEG"):
        bad.write_bytes(b"")
    folder = ["data.source=folder", f"data.root={image_root}", "data.on_bad_image=skip"]
    options = [
        option for option in RUN if not option.startswith(("data.classes", "data.train", "data.val", "data.size"))
    ]
    batch = ["train.batch_size=8", "eval.batch_size=4"]
    run_command(train, 2, *options, *folder, *batch, "--out", str(tmp_path / "run"))
    epochs = events(tmp_path / "run", "epoch")
    assert [(e["train_unreadable"], e["val_unreadable"], e["val_count"]) for e in epochs] == [(1, 1, 8), (1, 1, 8)]
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["unreadable"] == 2


@pytest.mark.parametrize("listed", [["class_0003", "class_0001"], []], ids=["of listed classes", "of all"])
def test_three_processes_count_each_image_once(whole: Path, tmp_path: Path, listed: list[str]) -> None:
    (tmp_path / "classes.txt").write_text("\n".join(listed))
    arguments = ["--ckpt", str(whole / "checkpoints" / "best.pt")]
    arguments += [f"eval.classes={tmp_path / 'classes.txt'}"] if listed else []
    assert evaluate([*arguments, "--json", str(tmp_path / "one.json")]) == 0
    run_command(evaluate, 3, *arguments, "--json", str(tmp_path / "three.json"))
    one, three = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("one", "three"))
    best = json.loads((whole / "summary.json").read_text())["best"]
    assert one["count"] < 37 if listed else one["count"] == 37 == best["count"]
    assert listed or one["top1_correct"] == best["top1_correct"]
    for key in ("count", "top1_correct", "top5_correct", "protocol"):
        assert three[key] == one[key]
    assert three["loss"] == pytest.approx(one["loss"], rel=1e-6)
