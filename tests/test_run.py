"""Whole runs in real processes: what they write, how they continue, and that their number does not matter."""

from __future__ import annotations

import itertools
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml
from conftest import SMALL, events, run_module, tensors
from ranks import run_ranks, start_ranks, train_ranks

from resnext_train.checkpoint import checkpoint_file
from resnext_train.checkpoint.checkpoint_file import load_first
from resnext_train.checkpoint.resume import branch_from, choose_checkpoint
from resnext_train.cli.eval import main as evaluate
from resnext_train.cli.train import main as train
from resnext_train.cli.verify import main as verify
from resnext_train.config import load_recipe
from resnext_train.run_dir.run_paths import RunDir
from resnext_train.training.optimizer import FiniteOptimizer
from resnext_train.verify.compare_runs import compare_runs

RUN = ["--config", "smoke.yaml", *SMALL]
TIMES = {"images_per_s", "data_wait", "seconds", "host", "command", "world_size", "threads", "path"}


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on one process with one thread, in a process of its own."""
    out = tmp_path_factory.mktemp("single") / "run"
    output = run_module("train", *RUN, "--out", str(out), "data.workers=1", "log.tensorboard=true")
    assert "top-1" in output
    assert f"run folder: {out}" in output
    return out


def comparable(run: Path, *kinds: str) -> list[dict[str, Any]]:
    """Events without what depends on the clock and the machine."""
    return [{k: v for k, v in e.items() if k not in TIMES} for kind in kinds for e in events(run, kind)]


def final_tensors(run: Path) -> dict[str, torch.Tensor]:
    return tensors(torch.load(run / "checkpoints" / "last.pt", weights_only=True))


def test_the_run_folder(single: Path) -> None:
    assert json.loads((single / "state.json").read_text()) == {"status": "done", "step": 6}
    recipe = yaml.safe_load((single / "recipe.yaml").read_text())
    assert recipe["model"]["arch"] == "resnext14_2x4d"
    assert recipe["train"]["batch_size"] == 16
    start, end = events(single, "start")[0], events(single, "end")[0]
    assert start["versions"]["torch"] == torch.__version__
    assert start["command"][1:] == [*RUN, "--out", str(single), "data.workers=1", "log.tensorboard=true"]
    assert (start["steps_per_epoch"], start["total_steps"]) == (
        3,
        6,
    )  # 52 images: 3 × 16, and 4 too few for 4 micro-batches
    steps = events(single, "step")
    assert [e["step"] for e in steps] == [2, 4, 6]
    assert [e["epoch"] for e in steps] == [1, 2, 2]
    assert set(steps[0]) == {"event", "step", "epoch", "loss", "lr", "top1", "images_per_s", "data_wait"}
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


def test_tensorboard_holds_the_logged_values(single: Path) -> None:
    check_curves(single)


def check_curves(single: Path) -> None:
    """TensorBoard shows each step of a run once, with the value in its log."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = EventAccumulator(str(single / "tensorboard"))
    board.Reload()
    for name in ("loss", "top1", "lr"):
        scalars = board.Scalars(f"train/{name}")
        assert [s.step for s in scalars] == [2, 4, 6]
        assert [s.value for s in scalars] == pytest.approx([e[name] for e in events(single, "step")], rel=1e-6)
    assert [s.value for s in board.Scalars("val/top1")] == pytest.approx(
        [100 * e["val_top1_correct"] / 37 for e in events(single, "epoch")]
    )


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


def test_two_processes_under_torchrun_are_bit_identical(single: Path, tmp_path: Path) -> None:
    out = tmp_path / "two"
    run_module("train", *RUN, "--out", str(out), "data.workers=0", processes=2)
    assert comparable(out, "step", "epoch") == comparable(single, "step", "epoch")
    one, two = final_tensors(single), final_tensors(out)
    assert one.keys() == two.keys()
    assert all(torch.equal(one[k], two[k]) for k in one)


@pytest.mark.parametrize("processes", [1, 3])
def test_evaluation_repeats_the_logged_counts(single: Path, tmp_path: Path, processes: int) -> None:
    target = tmp_path / "result.json"
    arguments = ["eval", "--ckpt", str(single / "checkpoints" / "best.pt"), "--json", str(target)]
    run_module(*arguments, processes=processes)
    result = json.loads(target.read_text())
    best = json.loads((single / "summary.json").read_text())["best"]
    for name in ("count", "top1_correct", "top5_correct", "top1", "top5"):
        assert result[name] == best[name]
    assert result["loss"] == pytest.approx(best["loss"], rel=1e-6)
    assert result["arch"] == "resnext14_2x4d"
    measures = {"count", "top1_correct", "top5_correct", "top1", "top5", "loss", "unreadable", "images_per_s"}
    assert set(result) == measures | {"protocol", "checkpoint", "arch", "images"}


def test_a_run_killed_between_its_epochs_checkpoints_continues_bit_identically(single: Path, tmp_path: Path) -> None:
    out = tmp_path / "killed"
    arguments = ["train", *RUN, "--out", str(out), "log.tensorboard=true"]
    kill_after_a_checkpoint(arguments, out)
    run_module(*arguments)
    check_curves(out)
    assert comparable(out, "step", "epoch") == comparable(single, "step", "epoch")
    one, two = final_tensors(single), final_tensors(out)
    assert all(torch.equal(one[k], two[k]) for k in one)


@pytest.mark.parametrize("world_size", [1, 3, 4])
def test_a_run_continues_on_another_number_of_processes(tmp_path: Path, world_size: int) -> None:
    """Stopped on 2 processes, continued on another number, and back: the same images, at the same learning rate.

    Losses are compared for the first step after each change: from then on the last bits of sums make themselves felt.
    """
    options = [*SMALL, "log.every=1", "checkpoint.keep=9"]
    whole, other, back = (tmp_path / name for name in ("whole", "other", "back"))
    run_ranks(train_ranks, 2, tmp_path, whole, [*options, "train.epochs=3"])
    run_ranks(
        train_ranks, world_size, tmp_path, other, [*options, "train.epochs=3"], whole / "checkpoints/epoch_0001.pt"
    )
    run_ranks(train_ranks, 2, tmp_path, back, [*options, "train.epochs=3"], other / "checkpoints/epoch_0002.pt")
    steps = {run: {e["step"]: e for e in events(run, "step")} for run in (whole, other, back)}
    assert steps[other].keys() == {4, 5, 6, 7, 8, 9}
    assert [steps[other][n]["lr"] for n in steps[other]] == [steps[whole][n]["lr"] for n in steps[other]]
    assert steps[other][4]["loss"] == pytest.approx(steps[whole][4]["loss"], rel=1e-6)
    assert steps[back][7]["loss"] == pytest.approx(steps[other][7]["loss"], rel=1e-6)
    assert [e["val_count"] for run in (whole, other, back) for e in events(run, "epoch")] == [37] * 6
    seen = [torch.load(r / "checkpoints/last.pt", weights_only=True)["meter"]["run"]["seen"] for r in steps]
    assert seen == [9 * 16] * 3


def test_four_processes_killed_and_continued_end_with_the_same_bits(tmp_path: Path) -> None:
    """The order of sums over three and more processes must be the same from a continued run's first step on."""
    options = [*SMALL, "log.every=1", "checkpoint.every_steps=1", "train.epochs=4"]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    run_ranks(train_ranks, 4, tmp_path, whole, options)
    for step in (2, 5, 8):
        ranks = start_ranks(train_ranks, 4, tmp_path, killed, options)
        deadline = time.monotonic() + 120
        while not any(e["step"] >= step for e in logged(killed)) and time.monotonic() < deadline:
            time.sleep(0.005)
        for rank in ranks:
            rank.kill()
            rank.join()
    run_ranks(train_ranks, 4, tmp_path, killed, options)
    assert len(events(killed, "start")) > 1
    assert comparable(killed, "step", "epoch") == comparable(whole, "step", "epoch")
    one, two = final_tensors(whole), final_tensors(killed)
    assert all(torch.equal(one[k], two[k]) for k in one)


def logged(run: Path) -> list[dict[str, Any]]:
    return events(run, "step") if (run / "log.jsonl").exists() else []


def test_a_user_can_prove_that_a_recipe_resumes_exactly(capfd: pytest.CaptureFixture[str]) -> None:
    """On 2 processes with much that has a memory: RMSProp, clipping, a plateau, padding, dropout, skipped images."""
    options = ["model.arch=torchvision/squeezenet1_1", "augment.crop=pad", "optimizer.name=rmsprop"]
    options += ["optimizer.lr=0.001", "optimizer.clip_norm=0.5", "schedule.name=plateau", "schedule.patience=0"]
    trial = ["--steps", "5", "--kills", "1", "--processes", "2"]
    assert verify(["--config", "smoke.yaml", *trial, *SMALL, *options]) == 0
    told = capfd.readouterr().out
    assert "kill 1 of 1: after step " in told
    assert re.search(r"equal: all \d+ tensors, values and logged events of 5 steps on 2 processes", told)


def test_a_branch_from_an_older_checkpoint_discards_the_later_ones(tmp_path: Path) -> None:
    out = tmp_path / "run"
    keep = [*RUN, "--out", str(out), "checkpoint.keep=5"]
    assert train([*keep, "train.epochs=3"]) == 0
    first = out / "checkpoints" / "epoch_0001.pt"
    branch_from(RunDir(out), first, 1)  # and killed before the branch's first checkpoint
    found = choose_checkpoint(RunDir(out), load_recipe(str(out / "recipe.yaml")), "auto")
    assert load_first(found)[0]["progress"]["step"] == 3
    assert load_first((out / "checkpoints" / "discarded.pt",))[0]["progress"]["step"] == 9
    assert train([*keep, "--resume", str(first), "train.epochs=2", "optimizer.lr=0.01"]) == 0
    state = {p.name: torch.load(p, weights_only=True) for p in (out / "checkpoints").glob("*.pt")}
    assert {
        "epoch_0001.pt",
        "epoch_0002.pt",
        "discarded_epoch_0002.pt",
        "discarded_epoch_0003.pt",
        "discarded.pt",
    } < set(state)
    lr = {name: s["recipe"]["optimizer"]["lr"] for name, s in state.items()}
    assert (lr["last.pt"], lr["epoch_0002.pt"], lr["discarded.pt"], lr["discarded_epoch_0002.pt"]) == (
        0.01,
        0.01,
        0.1,
        0.1,
    )
    assert [e["epoch"] for e in events(out, "epoch")] == [1, 2]


def test_a_proof_without_its_kills_is_none(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The run ends before it can be killed: here as if it were faster than it can be watched."""
    monkeypatch.setattr(
        "resnext_train.verify.rank_processes.RankProcesses.watch", lambda self, target: (self.wait(), (None, 0))[1]
    )
    monkeypatch.setenv("WORLD_SIZE", "8")  # of a job that this runs in
    assert verify(["--config", "smoke.yaml", "--steps", "3", "--kills", "1", *SMALL]) == 1
    assert "before it could be killed more than 0 times, which proves too little" in capsys.readouterr().err


def test_a_proof_finds_what_differs(tmp_path: Path, single: Path) -> None:
    """Two runs, of which one has another bit, a line twice and a step less."""
    runs = [tmp_path / name for name in ("whole", "killed")]
    for run in runs:
        shutil.copytree(single, run)
    last = runs[1] / "checkpoints" / "last.pt"
    state = torch.load(last, weights_only=True)
    state["model"]["fc.bias"].view(torch.int32)[2] ^= 1
    state["checkpointer"]["best"]["loss"] *= 1 + 1e-15
    torch.save(state, last)
    log = runs[1] / "log.jsonl"
    lines = [line for line in log.read_text().splitlines() if '"step", "step": 4' not in line]
    log.write_text("\n".join([*lines, next(line for line in lines if '"step", "step": 6' in line), ""]))
    _, differences = compare_runs(*runs)
    assert differences == [
        "log.jsonl, step 6 is logged twice in killed",
        "checkpointer/best/loss differs",
        "log.jsonl, step 4 is missing in one run",
        "model/fc.bias differs",
    ]


def test_momentum_that_is_turned_on_later_starts_from_zero(tmp_path: Path) -> None:
    out = tmp_path / "run"
    arguments = [*RUN, "--out", str(out), "optimizer.name=rmsprop", "optimizer.lr=0.001"]
    assert train([*arguments, "optimizer.momentum=0", "train.epochs=1"]) == 0
    last = out / "checkpoints" / "last.pt"
    assert train([*arguments, "optimizer.momentum=0.9", "--resume", str(last)]) == 0
    state = torch.load(last, weights_only=True)["optimizer"]["state"]
    assert all(float(s["momentum_buffer"].abs().sum()) > 0 for s in state.values())


def kill_after_a_checkpoint(arguments: list[str], out: Path) -> None:
    """Start a run and end it by SIGKILL as soon as it has a checkpoint, before its last step."""
    process = subprocess.Popen(
        [sys.executable, "-m", "resnext_train", *arguments],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + 120
    while not (out / "checkpoints" / "last.pt").exists() and time.monotonic() < deadline:
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    first = torch.load(out / "checkpoints" / "last.pt", weights_only=True)["progress"]["step"]
    assert first < 6, "killed too late to prove anything"


def test_a_checkpoint_of_format_2_continues(single: Path, tmp_path: Path) -> None:
    """Written before the checkpointer had a state: the best evaluation is part of the progress."""
    torch.set_num_threads(1)
    out = tmp_path / "run"
    arguments, checkpoints = [*RUN, "--out", str(out), "checkpoint.keep=2"], out / "checkpoints"
    assert train(arguments) == 0
    state = checkpoint_file.load(checkpoints / "epoch_0001.pt")
    best = state.pop("checkpointer")["best"]
    state["progress"]["best"] = best
    shutil.rmtree(checkpoints)
    checkpoints.mkdir()
    checkpoint_file.save({**state, "format": "resnext-train checkpoint 2"}, checkpoints / "last.pt", ["best.pt"])
    assert checkpoint_file.load(checkpoints / "best.pt")["checkpointer"] == {"best": best}
    assert train(arguments) == 0
    one, two = final_tensors(single), final_tensors(out)
    assert one.keys() == two.keys()
    assert all(torch.equal(one[k], two[k]) for k in one)
    summaries = [json.loads((run / "summary.json").read_text()) for run in (out, single)]
    assert summaries[0]["best"] == summaries[1]["best"]


def test_a_run_saves_after_a_time(tmp_path: Path) -> None:
    """Within an epoch, though neither steps nor epochs ask for it."""
    out = tmp_path / "run"
    assert train([*RUN, "--out", str(out), "checkpoint.every_minutes=1e-6", "checkpoint.every_epochs=9"]) == 0
    assert {1, 2, 4} <= {event["step"] for event in events(out, "checkpoint")}


def test_an_error_while_momentum_is_loaded_is_not_called_another_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    assert train([*RUN, "--out", str(out), "train.max_steps=1"]) == 0

    def fails(self: FiniteOptimizer, state: dict[str, Any]) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(FiniteOptimizer, "load_state_dict", fails)
    with pytest.raises(torch.OutOfMemoryError):
        train([*RUN, "--out", str(out), "train.max_steps=1"])


def test_a_finished_run_is_left_as_it_is(single: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = final_tensors(single)
    assert train([*RUN, "--out", str(single), "data.workers=1", "log.every=1"]) == 0
    assert "continuing from" in capsys.readouterr().out
    after = final_tensors(single)
    assert all(torch.equal(before[k], after[k]) for k in before)
    assert len(events(single, "epoch")) == 2


def test_a_finished_run_without_a_best_or_with_a_loss_that_is_no_number(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    arguments = [*RUN, "--out", str(out), "train.epochs=1", "optimizer.lr=1e30"]
    assert train(arguments) == 0
    best = out / "checkpoints" / "best.pt"
    assert math.isnan(torch.load(best, weights_only=True)["checkpointer"]["best"]["loss"])
    capsys.readouterr()
    assert train(arguments) == 0
    assert "best  top-1 0.00 %" in capsys.readouterr().out
    best.unlink()
    assert train(arguments) == 0
    assert "best  top-1" not in capsys.readouterr().out


def test_more_epochs_only_on_request(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    assert train([*RUN, "--out", str(out), "train.epochs=1"]) == 0
    assert train([*RUN, "--out", str(out)]) == 2
    assert "train.epochs: 1 -> 2" in capsys.readouterr().err
    changes = ["--resume", str(out / "checkpoints" / "last.pt"), "optimizer.weight_decay=0"]
    assert train([*RUN, "--out", str(out), *changes]) == 0
    assert "changed recipe: optimizer.weight_decay: 0.0001 -> 0.0, train.epochs: 1 -> 2" in capsys.readouterr().out
    settings = torch.load(out / "checkpoints" / "last.pt", weights_only=True)["optimizer"]["param_groups"]
    assert [group["weight_decay"] for group in settings] == [0.0, 0.0]
    assert [e["epoch"] for e in events(out, "epoch")] == [1, 2]


def test_a_checkpoint_from_elsewhere_starts_a_folder_of_its_own(
    single: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """best.pt must be the network whose result the summary calls best, though the old best.pt is elsewhere."""
    last, out = str(single / "checkpoints" / "last.pt"), tmp_path / "run"
    assert train([*RUN, "--out", str(out), "--resume", last, "train.epochs=3", "optimizer.lr=1e-9"]) == 0
    summary = json.loads((out / "summary.json").read_text())
    assert summary["best"]["epoch"] == 3
    target = tmp_path / "result.json"
    assert evaluate(["--ckpt", str(out / "checkpoints" / "best.pt"), "--json", str(target)]) == 0
    assert json.loads(target.read_text())["top1_correct"] == summary["best"]["top1_correct"]
    before = (out / "log.jsonl").read_text()
    assert train([*RUN, "--out", str(out), "--resume", last, "train.epochs=3"]) == 2
    assert "already holds another run" in capsys.readouterr().err
    assert (out / "log.jsonl").read_text() == before


def test_a_changed_batch_size_continues_after_as_many_epochs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert train([*RUN, "--out", str(out), "train.epochs=1"]) == 0
    recipe = (out / "recipe.yaml").read_text()
    last = ["--resume", str(out / "checkpoints" / "last.pt")]
    capsys.readouterr()
    for change, told in (("model.arch=resnet18", "another network"), ("data.train_images=60", "60 training images")):
        assert train([*RUN, "--out", str(out), *last, change]) == 2
        assert told in capsys.readouterr().err
        assert (out / "recipe.yaml").read_text() == recipe, "a refused start changes nothing"
    assert train([*RUN, "--out", str(out), *last, "train.batch_size=8", "train.epochs=2", "schedule.name=plateau"]) == 0
    assert [(e["epoch"], e["step"]) for e in events(out, "epoch")] == [
        (1, 3),
        (2, 14),
    ]  # 7 steps an epoch now: 52 = 6 · 8 + 4


def test_a_run_that_diverges_still_ends_in_order(tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert train([*RUN, "--out", str(out), "optimizer.lr=1e30"]) == 0

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    summary = json.loads((out / "summary.json").read_text(), parse_constant=refuse)
    assert summary["last"]["loss"] is None
    assert summary["last"]["top1_correct"] == 0, "a network that diverged is never right"
    assert (summary["best"]["epoch"], summary["last"]["epoch"]) == (1, 2), "the best is the first of those as good"
    for line in (out / "log.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=refuse)


def test_max_steps_ends_in_mid_epoch_with_an_evaluation(tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert train([*RUN, "--out", str(out), "train.max_steps=4", "checkpoint.keep=1"]) == 0
    assert [(e["epoch"], e["step"], e["val_count"]) for e in events(out, "epoch")] == [(1, 3, 37), (2, 4, 37)]
    names = sorted(p.name for p in (out / "checkpoints").iterdir())
    assert names == ["best.pt", "epoch_0002.pt", "last.pt", "previous.pt"]


def test_a_run_continued_in_mid_epoch_is_the_undisturbed_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its weights and momentum, and the training loss, accuracy and time of the whole epoch."""
    torch.set_num_threads(1)
    ticks = SimpleNamespace(perf_counter=map(float, itertools.count()).__next__)  # a second for each look at the clock
    monkeypatch.setattr("resnext_train.training.throughput.time", ticks)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    options = [*RUN, "schedule.name=step"]  # a cosine would end with max_steps
    assert train([*options, "--out", str(whole)]) == 0
    assert train([*options, "--out", str(parts), "train.max_steps=4"]) == 0
    assert train([*options, "--out", str(parts), "--resume", str(parts / "checkpoints" / "last.pt")]) == 0
    for name in ("step", "train_loss", "train_top1", "val_top1_correct"):
        assert events(parts, "epoch")[-1][name] == events(whole, "epoch")[-1][name]
    first, cut, second = (e["seconds"] for e in events(parts, "epoch"))
    assert cut > 5, "the clock ticks within an epoch"
    assert 0 <= events(parts, "end")[-1]["seconds"] - (first + second) < 3, "but the last save"
    one, two = final_tensors(whole), final_tensors(parts)
    assert all(torch.equal(one[k], two[k]) for k in one)


def test_evaluation_every_second_epoch(tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert train([*RUN, "--out", str(out), "train.epochs=3", "eval.every_epochs=2"]) == 0
    assert [e["val_count"] for e in events(out, "epoch")] == [None, 37, 37]


def test_compiled_training_is_close_to_eager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The whole of torch.compile but its last stage, the C++ compiler, which takes a minute.
    compile_whole = torch.nn.Module.compile
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self: compile_whole(self, backend="aot_eager"))
    out = tmp_path / "compiled"
    one_step = ["train.max_steps=1", "log.every=1"]
    assert train([*RUN, "--out", str(tmp_path / "eager"), *one_step]) == 0
    assert train([*RUN, "--out", str(out), *one_step, "train.compile=true"]) == 0
    eager, compiled = (events(p, "step")[0]["loss"] for p in (tmp_path / "eager", out))
    assert compiled == pytest.approx(eager, rel=1e-4)
    assert "conv1.weight" in torch.load(out / "checkpoints" / "last.pt", weights_only=True)["model"]


def test_training_and_evaluating_a_folder_of_images(
    image_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    shared = [a for a in SMALL if not a.startswith(("data.", "train.batch", "train.micro"))]
    folder = ["data.source=folder", f"data.root={image_root}", "data.workers=2"]
    batch = ["train.batch_size=8", "train.micro_batch=4"]
    assert train(["--config", "smoke.yaml", *shared, *folder, *batch, "--out", str(out)]) == 0
    best = json.loads((out / "summary.json").read_text())["best"]
    for data in (image_root, image_root / "val"):
        target = tmp_path / "result.json"
        ckpt = str(out / "checkpoints" / "best.pt")
        assert evaluate(["--ckpt", ckpt, "--data", str(data), "--json", str(target)]) == 0
        result = json.loads(target.read_text())
        assert [result[k] for k in ("count", "top1_correct")] == [9, best["top1_correct"]]

    # A subset of the classes is mapped by name, not by position.
    per_class = {}
    for name in ("dog", "emu"):
        only = tmp_path / name
        only.mkdir()
        (only / name).symlink_to(image_root / "val" / name)
        assert evaluate(["--ckpt", ckpt, "--data", str(only), "--json", str(target)]) == 0
        per_class[name] = json.loads(target.read_text())["top1_correct"]
    both = tmp_path / "both"
    both.mkdir()
    for name in per_class:
        (both / name).symlink_to(image_root / "val" / name)
    assert evaluate(["--ckpt", ckpt, "--data", str(both), "--json", str(target)]) == 0
    assert json.loads(target.read_text())["top1_correct"] == sum(per_class.values())
    (both / "yak").symlink_to(image_root / "val" / "cat")
    capsys.readouterr()
    assert evaluate(["--ckpt", ckpt, "--data", str(both)]) == 2
    assert "does not know: yak" in capsys.readouterr().err


def test_foreign_weights_are_evaluated_with_a_recipe(image_root: Path, tmp_path: Path) -> None:
    import torchvision
    from torchvision.io import decode_image
    from torchvision.transforms import v2

    torch.manual_seed(0)
    network = torchvision.models.resnet18(num_classes=3)
    torch.save({"state_dict": {f"module.{k}": v for k, v in network.state_dict().items()}}, tmp_path / "w.pth")
    target = tmp_path / "result.json"
    arguments = ["--ckpt", str(tmp_path / "w.pth"), "--config", "resnet18.yaml", "--data", str(image_root)]
    options = [
        "eval.resize=40",
        "eval.crop=32",
        "train.precision=fp32",
        "data.workers=0",
        "--json",
        str(target),
    ]
    assert evaluate([*arguments, *options]) == 0
    bicubic = v2.InterpolationMode.BICUBIC
    steps = [v2.Resize(40, bicubic), v2.CenterCrop(32), v2.ToDtype(torch.float32, scale=True)]
    transform = v2.Compose([*steps, v2.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))])
    files = sorted((image_root / "val").rglob("*.JPEG"))
    images = torch.stack([transform(decode_image(str(f))) for f in files])
    labels = torch.tensor([["cat", "dog", "emu"].index(f.parent.name) for f in files])
    with torch.no_grad():
        logits = network.eval()(images)
    result = json.loads(target.read_text())
    assert result["top1_correct"] == int((logits.argmax(1) == labels).sum())
    assert result["top5_correct"] == result["count"] == 9, "top-5 of three classes is always right"
    assert result["loss"] == pytest.approx(torch.nn.functional.cross_entropy(logits, labels).item(), rel=1e-4)
