"""Runs that go on from a checkpoint: which one, with what of the recipe changed, and what is kept."""

from __future__ import annotations

import itertools
import json
import math
import re
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml

from helpers.commands import Refuses, evaluate, train
from helpers.runs import RUN, equal_runs, events, state_of
from resnext_train.checkpoint import checkpoint_file
from resnext_train.checkpoint.checkpoint_file import load_first
from resnext_train.checkpoint.resume import branch_from, choose_checkpoint
from resnext_train.config import load_recipe
from resnext_train.errors import InputError
from resnext_train.run_dir.run_paths import RunDir
from resnext_train.training.optimizer import FiniteOptimizer
from resnext_train.training.train_step import TrainStep


@pytest.mark.slow
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


def test_momentum_that_is_turned_on_later_starts_from_zero(tmp_path: Path) -> None:
    out = tmp_path / "run"
    arguments = [*RUN, "--out", str(out), "optimizer.name=rmsprop", "optimizer.lr=0.001"]
    assert train([*arguments, "optimizer.momentum=0", "train.epochs=1"]) == 0
    last = out / "checkpoints" / "last.pt"
    assert train([*arguments, "optimizer.momentum=0.9", "--resume", str(last)]) == 0
    state = torch.load(last, weights_only=True)["optimizer"]["state"]
    assert all(float(s["momentum_buffer"].abs().sum()) > 0 for s in state.values())


@pytest.mark.slow
def test_a_checkpoint_of_format_2_continues(whole: Path, tmp_path: Path) -> None:
    """Written before the checkpointer had a state: the best evaluation is part of the progress."""
    torch.set_num_threads(1)
    out = tmp_path / "run"
    arguments, checkpoints = [*RUN, "--out", str(out), "checkpoint.keep=2"], out / "checkpoints"
    assert train(arguments) == 0
    state = checkpoint_file.load(checkpoints / "epoch_0001.pt")
    best = state.pop("checkpointer")["best"]
    state["progress"]["best"] = best
    del state["progress"]["epoch_is_open"], state["progress"]["epoch_began"], state["skipped"]  # as the earliest
    shutil.rmtree(checkpoints)
    checkpoints.mkdir()
    checkpoint_file.save({**state, "format": "resnext-train checkpoint 2"}, checkpoints / "last.pt", ["best.pt"])
    assert checkpoint_file.load(checkpoints / "best.pt")["checkpointer"] == {"best": best}
    assert train(arguments) == 0
    assert equal_runs(out, whole)
    summaries = [json.loads((run / "summary.json").read_text()) for run in (out, whole)]
    assert summaries[0]["best"] == summaries[1]["best"]


def test_an_error_while_momentum_is_loaded_is_not_called_another_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    assert train([*RUN, "--out", str(out), "train.max_steps=1"]) == 0

    def fails(self: FiniteOptimizer, state: dict[str, Any]) -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(FiniteOptimizer, "load_state_dict", fails)
    with pytest.raises(RuntimeError, match="illegal memory access"):
        train([*RUN, "--out", str(out), "train.max_steps=1"])


def test_a_finished_run_is_left_as_it_is(whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    shutil.copytree(whole, out)
    assert train([*RUN, "--out", str(out), "log.every=1"]) == 0
    assert f"{out / 'checkpoints' / 'last.pt'}, step 6, the end of the run" in capsys.readouterr().out
    assert equal_runs(out, whole)
    assert len(events(out, "epoch")) == 2


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
    assert "best  accuracy 0.00 %" in capsys.readouterr().out
    best.unlink()
    assert train(arguments) == 0
    assert "best  accuracy" not in capsys.readouterr().out


def test_more_epochs_only_on_request(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    assert train([*RUN, "--out", str(out), "train.epochs=1"]) == 0
    assert train([*RUN, "--out", str(out)]) == 2
    assert "train.epochs: 1 -> 2" in capsys.readouterr().err
    changes = ["--resume", str(out / "checkpoints" / "last.pt"), "optimizer.weight_decay=0"]
    assert train([*RUN, "--out", str(out), *changes]) == 0
    assert ": optimizer.weight_decay: 0.0001 -> 0.0, train.epochs: 1 -> 2\n" in capsys.readouterr().out
    settings = torch.load(out / "checkpoints" / "last.pt", weights_only=True)["optimizer"]["param_groups"]
    assert [group["weight_decay"] for group in settings] == [0.0, 0.0]
    assert [e["epoch"] for e in events(out, "epoch")] == [1, 2]


def test_a_checkpoint_from_elsewhere_starts_a_folder_of_its_own(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """best.pt must be the network whose result the summary calls best, though the old best.pt is elsewhere."""
    last, out = str(whole / "checkpoints" / "last.pt"), tmp_path / "run"
    assert train([*RUN, "--out", str(out), "--resume", last, "train.epochs=3", "optimizer.lr=1e-9"]) == 0
    summary = json.loads((out / "summary.json").read_text())
    assert summary["best"]["epoch"] == 3
    target = tmp_path / "result.json"
    assert evaluate(["--ckpt", str(out / "checkpoints" / "best.pt"), "--json", str(target)]) == 0
    assert json.loads(target.read_text())["top1_correct"] == summary["best"]["top1_correct"]
    before = (out / "log.jsonl").read_text()
    assert train([*RUN, "--out", str(out), "--resume", last, "train.epochs=3"]) == 2
    error = capsys.readouterr().err
    assert all(fact in error for fact in (f"{out} ", "optimizer.lr: 1e-09 -> 0.1", "--out")), error
    assert (out / "log.jsonl").read_text() == before


def test_a_changed_batch_size_continues_after_as_many_epochs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert train([*RUN, "--out", str(out), "train.epochs=1"]) == 0
    recipe = (out / "recipe.yaml").read_text()
    last = ["--resume", str(out / "checkpoints" / "last.pt")]
    capsys.readouterr()
    for change, told in (
        ("model.arch=resnet18", r" network .*\bresnet18\b"),
        ("data.train_images=60", r"\b60 .*\b52\b"),
    ):
        assert train([*RUN, "--out", str(out), *last, change]) == 2
        assert re.search(told, capsys.readouterr().err)
        assert (out / "recipe.yaml").read_text() == recipe, "a refused start changes nothing"
    assert train([*RUN, "--out", str(out), *last, "train.batch_size=8", "train.epochs=2", "schedule.name=plateau"]) == 0
    assert [(e["epoch"], e["step"]) for e in events(out, "epoch")] == [
        (1, 3),
        (2, 14),
    ]  # 7 steps an epoch now: 52 = 6 · 8 + 4


def test_the_time_of_an_epoch_that_was_cut_short_counts_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = SimpleNamespace(perf_counter=map(float, itertools.count()).__next__)  # a second for each look at the clock
    monkeypatch.setattr("resnext_train.training.throughput.time", ticks)
    out = tmp_path / "run"
    arguments = [*RUN, "schedule.name=step", "--out", str(out)]  # a cosine would end with max_steps
    assert train([*arguments, "train.max_steps=4"]) == 0
    assert train([*arguments, "--resume", str(out / "checkpoints" / "last.pt")]) == 0
    first, cut, second = (e["seconds"] for e in events(out, "epoch"))
    assert cut > 5, "the clock ticks within an epoch"
    assert 0 <= events(out, "end")[-1]["seconds"] - (first + second) < 3, "but the last save"


def test_a_damaged_checkpoint_is_named_and_the_one_before_continues(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], refuses: Refuses
) -> None:
    out = tmp_path / "run"
    arguments = [*RUN, "--out", str(out)]
    assert train([*arguments, "checkpoint.every_steps=2"]) == 0
    last, previous = out / "checkpoints" / "last.pt", out / "checkpoints" / "previous.pt"
    before = checkpoint_file.load(previous)["progress"]["step"]
    damaged = bytearray(last.read_bytes())
    damaged[len(damaged) // 2] ^= 16
    last.write_bytes(damaged)
    capsys.readouterr()
    assert train(arguments) == 0
    told = capsys.readouterr()
    assert f"{last} is damaged: its content does not match its checksum" in told.err
    assert f"continuing from {previous}, step {before}" in told.out
    assert [e["step"] for e in events(out, "step")] == [2, 4, 6]
    assert (out / "checkpoints" / "discarded.pt").read_bytes() == damaged
    for path in (last, previous):
        path.write_bytes(damaged)
    assert refuses(train, *arguments).count("is damaged") == 2


def older(out: Path, key: str) -> None:
    """Make a run one of a version without `train.key`."""
    recipe = yaml.safe_load((out / "recipe.yaml").read_text())
    del recipe["train"][key]
    (out / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    for path in (out / "checkpoints").glob("*.pt"):
        content = torch.load(path, weights_only=True)
        del content["recipe"]["train"][key]
        checkpoint_file.save(content, path)


@pytest.mark.slow
def test_a_run_from_before_last_batch_goes_on_with_the_steps_it_had(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """52 images in batches of 16: the last 4, two in each micro-batch, were a step, and are none by `auto`."""
    out, branch, whole = tmp_path / "run", tmp_path / "branch", tmp_path / "whole"
    run = [*RUN, "train.micro_batch=8", "schedule.name=step"]
    assert train([*run, "--out", str(whole), "train.last_batch=keep"]) == 0
    assert train([*run, "--out", str(out), "train.last_batch=keep", "train.max_steps=5"]) == 0
    older(out, "last_batch")
    last = ["--resume", str(out / "checkpoints" / "last.pt")]
    assert train([*run, "--out", str(branch), *last]) == 0
    assert "train.last_batch=keep" in capsys.readouterr().out
    assert train([*run, "--out", str(out), "train.max_steps=5", "--dry-run"]) == 0
    assert re.search(r"^length .* 4 steps an epoch, 5 .*\b4 images\b.*keep", capsys.readouterr().out, re.MULTILINE)
    assert train([*run, "--out", str(out), *last]) == 0
    assert train([*run, "--out", str(out)]) == 0, "the same command, once more"
    for continued in (out, branch):
        assert equal_runs(continued, whole)
        assert events(continued, "start")[-1]["last_batch"] == {"images": 4, "dropped": 0}
    fresh = tmp_path / "fresh"
    assert train([*run, "--out", str(fresh), "train.epochs=1"]) == 0
    assert events(fresh, "start")[0]["last_batch"] == {"images": 0, "dropped": 4}
    assert state_of(fresh)["step"] == 3


def test_a_run_goes_on_with_other_steps_per_epoch(tmp_path: Path) -> None:
    """From 4 steps an epoch to 3: after the first epoch come steps 4 to 6."""
    out = tmp_path / "run"
    run = [*RUN, "train.micro_batch=8", "log.every=1", "--out", str(out)]
    assert train([*run, "train.last_batch=keep", "train.epochs=1"]) == 0
    last = str(out / "checkpoints" / "last.pt")
    assert train([*run, "--resume", last, "train.last_batch=drop", "train.epochs=2"]) == 0
    assert [e["step"] for e in events(out, "step")] == [1, 2, 3, 4, 4, 5, 6]
    assert [e["epoch"] for e in events(out, "step")] == [1, 1, 1, 1, 2, 2, 2]


def lost(run: Path, *names: str) -> None:
    for name in names:
        (run / name).unlink()


@pytest.mark.parametrize(
    ("gone", "choice"),
    [
        (["checkpoints/last.pt", "checkpoints/previous.pt"], "checkpoints/best.pt"),
        (["recipe.yaml"], "checkpoints/last.pt"),
        (["checkpoints/last.pt", "checkpoints/previous.pt", "checkpoints/best.pt"], "state.json"),
        (["checkpoints/last.pt", "checkpoints/previous.pt", "checkpoints/best.pt", "state.json"], "log.jsonl"),
    ],
    ids=["only the best is left", "no recipe", "no checkpoint", "only a log"],
)
def test_a_run_whose_checkpoints_are_gone_is_not_started_anew(
    gone: list[str], choice: str, whole: Path, tmp_path: Path, refuses: Refuses
) -> None:
    out = tmp_path / "run"
    shutil.copytree(whole, out)
    shutil.copy(out / "checkpoints" / "last.pt", out / "checkpoints" / "previous.pt")
    lost(out, *gone)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file() and path.name != ".lock"}
    for resume in ("auto", "never"):
        told = refuses(train, *RUN, "--out", str(out), "--resume", resume)
        assert str(out) in told
        assert "--out" in told
    told = refuses(train, *RUN, "--out", str(out))
    assert str(out / choice) in told
    assert ("--resume" in told) == choice.endswith(".pt")
    assert {path: path.read_bytes() for path in before} == before
    other = str(whole / "checkpoints" / "last.pt")
    assert "already holds another run" in refuses(train, *RUN, "--out", str(out), "--resume", other)
    if choice.endswith(".pt"):
        assert train([*RUN, "--out", str(out), "--resume", str(out / choice)]) == 0
        assert events(out, "start")[-1]["step"] > 0


def test_a_run_that_never_saved_starts_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, step = tmp_path / "run", TrainStep.__call__

    def fails(self: TrainStep, micro_batches: Any, number: int, *more: Any) -> None:
        if number == 2:
            raise InputError("an image that cannot be read")
        step(self, micro_batches, number, *more)

    monkeypatch.setattr(TrainStep, "__call__", fails)
    assert train([*RUN, "--out", str(out), "log.every=1"]) == 2
    assert [e["step"] for e in events(out, "step")] == [1, 2]
    monkeypatch.undo()
    assert train([*RUN, "--out", str(out), "train.max_steps=1"]) == 2, "another recipe"
    assert train([*RUN, "--out", str(out), "log.every=1"]) == 0
    assert [e["step"] for e in events(out, "step")] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("kind", ["folder", "link to itself", "link to nothing"])
def test_a_last_checkpoint_that_is_no_file_is_put_aside(
    kind: str, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    shutil.copytree(whole, out)
    last, previous, discarded = (out / "checkpoints" / f"{name}.pt" for name in ("last", "previous", "discarded"))
    last.rename(previous)
    if kind == "folder":
        last.mkdir()
        (last / "x").touch()
        discarded.touch()
        discarded = discarded.with_name("discarded-2.pt")
    else:
        last.symlink_to(last if kind == "link to itself" else tmp_path / "gone.pt")
    capsys.readouterr()
    assert train([*RUN, "--out", str(out)]) == 0
    told = capsys.readouterr()
    assert str(last) in told.err
    assert f"continuing from {previous}, step 6" in told.out
    assert discarded.is_dir() == (kind == "folder")
    assert last.is_file()
    assert equal_runs(out, whole)
    assert not list(out.rglob("*.new"))


def test_an_open_epoch_that_a_changed_recipe_does_not_evaluate_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"

    def fails(*_: Any) -> None:
        raise InputError("a validation image that cannot be read")

    monkeypatch.setattr("resnext_train.training.validation.evaluate", fails)
    assert train([*RUN, "--out", str(out)]) == 2
    monkeypatch.undo()
    last = out / "checkpoints" / "last.pt"
    assert checkpoint_file.load(last)["progress"]["epoch_is_open"]
    changed = ["--resume", str(last), "eval.every_epochs=9", "checkpoint.every_steps=1"]
    assert train([*RUN, "--out", str(out), *changed]) == 0
    opened = {e["step"]: e["epoch_is_open"] for e in events(out, "checkpoint") if e["step"] in (4, 5)}
    assert opened == {4: False, 5: False}
    assert [e["step"] for e in events(out, "epoch")] == [3, 6]


def test_a_path_continues_where_the_recipe_of_the_folder_is_damaged(whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    shutil.copytree(whole, out)
    (out / "recipe.yaml").write_bytes(b"\xff")
    assert train([*RUN, "--out", str(out), "--resume", str(out / "checkpoints" / "last.pt")]) == 0
    assert (out / "recipe.yaml").read_text() == (whole / "recipe.yaml").read_text()


def test_a_run_from_before_there_were_references_goes_on_and_is_compared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The key changes no step: with or without it, the folder holds a run of the same recipe."""
    out = tmp_path / "run"
    run = [*RUN, "--out", str(out), "train.epochs=1"]
    assert train([*run, "train.max_steps=1"]) == 0
    assert events(out, "start")[0]["deviations"] == []
    older(out, "reference")
    assert train([*run, "train.max_steps=1", "train.reference=resnext_torch", "train.seed=0"]) == 0
    told = capsys.readouterr().out
    found = events(out, "start")[-1]["deviations"]
    assert f"fidelity      {len(found)} deviations from the ResNeXt paper's code; --dry-run lists them\n" in told
    epochs = next(entry for entry in found if entry["point"] == "train.epochs")
    assert (epochs["ours"], epochs["theirs"], epochs["kind"]) == ("1", "100", "recipe")
    assert train([*run, "train.max_steps=1", "train.reference=resnext_torch", "--dry-run"]) == 0
    listed = capsys.readouterr().out
    assert f"\ndeviations from the ResNeXt paper's code ({len(found)}):\n" in listed
    assert re.search(r"^  train\.epochs +here: 1; there: 100 \(opts\.lua", listed, re.MULTILINE)
