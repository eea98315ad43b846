"""Whole runs in real processes: what they write, how they continue, and that their number does not matter."""

from __future__ import annotations

import hashlib
import json
import math
import socket
from pathlib import Path

import pytest
import torch
import yaml

from helpers.commands import evaluate
from helpers.runs import RUN, check_curves, comparable, equal_runs, events, run_module, tensors
from helpers.shared import made_once
from resnext_train.data.loader_workers import START
from resnext_train.distributed.environment import environment_set

pytestmark = pytest.mark.slow


@pytest.fixture(scope="session")
def single(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on one process with one thread, in a process of its own, whose loader processes import all anew."""

    def run(out: Path) -> None:
        with environment_set({START: "spawn"}):
            output = run_module("train", *RUN, "--out", str(out), "data.workers=1", "log.to=[tensorboard]")
        assert "top-5 accuracy" in output
        assert f"run folder: {out}" in output

    return made_once(tmp_path_factory, "single", run)


def test_the_run_folder(single: Path) -> None:
    assert json.loads((single / "state.json").read_text()) == {"status": "done", "step": 6}
    recipe = yaml.safe_load((single / "recipe.yaml").read_text())
    assert recipe["model"]["arch"] == "resnext14_2x4d"
    assert recipe["train"]["batch_size"] == 16
    start, end = events(single, "start")[0], events(single, "end")[0]
    assert start["versions"]["torch"] == torch.__version__
    assert start["command"][1:] == ["train", *RUN, "--out", str(single), "data.workers=1", "log.to=[tensorboard]"]
    assert (start["steps_per_epoch"], start["total_steps"]) == (
        3,
        6,
    )  # 52 images: 3 × 16, and 4 too few for 4 micro-batches
    steps = events(single, "step")
    assert [e["step"] for e in steps] == [2, 4, 6]
    assert [e["epoch"] for e in steps] == [1, 2, 2]
    speed = {"memory_mb", "flops_per_s", "flops_per_s_each"}
    assert set(steps[0]) == {"event", "step", "epoch", "loss", "lr", "top1", "images_per_s", "data_wait", *speed}
    assert all(math.isfinite(e["loss"]) and 0 <= e["data_wait"] <= 1 and e["images_per_s"] > 0 for e in steps)
    epochs = events(single, "epoch")
    assert [e["epoch"] for e in epochs] == [1, 2]
    assert [e["val_count"] for e in epochs] == [37, 37]
    for name in ("train_loss", "train_top1", "val_top1_correct", "val_top5_correct", "val_loss", "seconds"):
        assert all(name in e for e in epochs)
    assert len(end["weights_sha256"]) == 64
    summary = json.loads((single / "summary.json").read_text())
    best = max(epochs, key=lambda e: e["val_top1_correct"])
    assert summary["best"]["epoch"] == best["epoch"]
    assert summary["best"]["top1_correct"] == best["val_top1_correct"]
    assert summary["last"]["top1"] == 100 * epochs[-1]["val_top1_correct"] / 37
    assert (summary["epochs"], summary["steps"]) == (2, 6)
    assert summary["images_per_s"] == pytest.approx(96 / summary["seconds"])


def test_the_summary_says_what_the_run_was_made_with(single: Path) -> None:
    summary, start = json.loads((single / "summary.json").read_text()), events(single, "start")[0]
    weights = torch.load(single / "checkpoints" / "best.pt", weights_only=True)["model"]
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    assert summary["recipe_sha256"] == hashlib.sha256((single / "recipe.yaml").read_bytes()).hexdigest()
    assert summary["host"] == socket.gethostname()
    assert (summary["classes"], summary["train_images"], summary["val_images"]) == (4, 52, 37)
    assert (summary["world_size"], summary["threads"], summary["precision"]) == (1, 1, "fp32")
    assert summary["network"]["size"] == 32
    trained = sum(tensor.numel() for name, tensor in weights.items() if not name.endswith(statistics))
    assert summary["network"]["parameters"] == trained
    assert summary["hardware"]
    assert summary["command"] == start["command"]
    assert summary["command"][0] == "resnext"
    assert not [key for key in ("device", "warnings") if key in summary]


def test_tensorboard_holds_the_logged_values(single: Path) -> None:
    check_curves(single)


def test_the_checkpoint_is_plain_and_complete(single: Path) -> None:
    state = torch.load(single / "checkpoints" / "best.pt", weights_only=True)
    assert set(state) == {
        *(
            "format",
            "model",
            "optimizer",
            "scaler",
            "schedule",
            "meter",
            "rng",
            "progress",
            "recipe",
            "classes",
        ),
        *("version", "plan", "images", "skipped", "checkpointer"),
    }
    assert state["classes"] == ["class_0000", "class_0001", "class_0002", "class_0003"]
    assert not any(k.startswith(("module.", "_orig_mod.")) for k in state["model"])
    assert all(t.device.type == "cpu" for t in tensors(state).values())
    assert state["model"]["bn1.num_batches_tracked"] == state["progress"]["step"]


def test_two_processes_are_bit_identical_and_count_as_one(single: Path, tmp_path: Path) -> None:
    """Started by `--procs 2`; test_several_ranks.py has evaluations on several ranks.

    In a folder with dollar signs, which torch's agent would take for variables of its own.
    """
    out = tmp_path / "$local_rank$$"
    run_module("train", "--procs", "2", *RUN, "--out", str(out), "data.workers=0")
    assert comparable(out, "step", "epoch") == comparable(single, "step", "epoch")
    assert equal_runs(out, single)
    assert events(out, "start")[0]["world_size"] == 2


def test_evaluation_repeats_the_logged_counts(single: Path, tmp_path: Path) -> None:
    target = tmp_path / "result.json"
    assert evaluate(["--ckpt", str(single / "checkpoints" / "best.pt"), "--json", str(target)]) == 0
    result = json.loads(target.read_text())
    best = json.loads((single / "summary.json").read_text())["best"]
    for name in ("count", "top1_correct", "top5_correct", "top1", "top5"):
        assert result[name] == best[name]
    assert result["loss"] == pytest.approx(best["loss"], rel=1e-6)
    assert result["arch"] == "resnext14_2x4d, width 0.25"
    assert (result["epoch"], result["eval"]["resize"], result["eval"]["crop"]) == (best["epoch"], 36, 32)
    measures = {"count", "top1_correct", "top5_correct", "top1", "top5", "loss", "unreadable", "images_per_s"}
    details = {"top1_interval", "top5_interval", "calibration", "worst_classes", "confusions", "classes", "confusion"}
    assert set(result) == measures | details | {"protocol", "checkpoint", "arch", "images", "data", "eval", "epoch"}
