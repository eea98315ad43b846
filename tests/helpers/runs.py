"""Runs of the commands in processes of their own, and what runs leave in their folders."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

SMALL = [
    "data.train_images=52",
    "data.val_images=37",
    "data.size=40",
    "data.classes=4",
    "data.workers=0",
    "augment.size=32",
    "eval.resize=36",
    "eval.crop=32",
    "eval.batch_size=8",
    "model.arch=resnext14_2x4d",
    "model.width=0.25",
    "train.batch_size=16",
    "train.micro_batch=4",
    "train.epochs=2",
    "train.precision=fp32",
    "optimizer.lr=0.1",
    "schedule.warmup=0",
    "log.every=2",
    "log.to=[]",
]
"""Overrides that turn smoke.yaml into a run of a few seconds: 3 steps an epoch, and 4 images too few for a step."""
RUN = ["--config", "smoke.yaml", *SMALL]
EVERYTHING = [
    *("optimizer.name=lamb", "optimizer.lr=0.01", "optimizer.decay_1d=false", "optimizer.clip_norm=1.0"),
    *("ema.decay=0.7", "ema.every=2", "ema.warmup=2 steps", "train.loss=bce", "train.label_smoothing=0.1"),
    *("mix.mixup=0.2", "mix.cutmix=1.0", "auto_augment.name=timm_randaugment", "augment.repeats=3"),
    *("erase.probability=0.5", "erase.value=pixel", "erase.count=2", "model.stochastic_depth=0.3"),
    *("augment.start_size=32", "augment.size=64", "augment.growth=[0, 2]", "model.blur_pool=true"),
    "train.checkpoint_activations=true",
]
"""Overrides that turn on what later recipes use, all at once."""
LONG = ["train.epochs=400", "log.every=1", "checkpoint.every_steps=1"]
"""Overrides for a run that a test ends."""
SIGNALS = "--signals-to-handle=SIGTERM,SIGINT,SIGUSR1,SIGHUP"
"""torchrun's option, as the README shows it."""
_TIMES = {
    *("images_per_s", "data_wait", "flops_per_s", "flops_per_s_each", "memory_mb", "seconds"),
    *("host", "command", "continued_from", "world_size", "threads", "path"),
}


def module(*arguments: str, torchrun: int = 0) -> list[str]:
    """The command line of `python -m resnext_train ...`, under torchrun if that many processes are given."""
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={torchrun}", SIGNALS]
    return [sys.executable, *(launcher if torchrun else []), "-m", "resnext_train", *arguments]


def environment(threads: int = 1) -> dict[str, str]:
    """The environment of such a process."""
    return {**os.environ, "OMP_NUM_THREADS": str(threads)}


def run_module(*arguments: str, torchrun: int = 0, threads: int = 1, cwd: Path | None = None) -> str:
    """Run `python -m resnext_train ...`, see `module`; its output. Fails the test if it fails."""
    done = start_module(*arguments, torchrun=torchrun, threads=threads, cwd=cwd)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Warning" not in done.stderr
    return done.stdout


def start_module(
    *arguments: str, torchrun: int = 0, threads: int = 1, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Like `run_module`, whatever the exit code."""
    return subprocess.run(
        module(*arguments, torchrun=torchrun),
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
        cwd=cwd,
        env=environment(threads),
    )


def start_run(out: Path, *options: str, torchrun: int = 0) -> subprocess.Popen[str]:
    """Start a small run in the background; its output is in one stream."""
    return subprocess.Popen(
        module("train", *RUN, *options, "--out", str(out), torchrun=torchrun),
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def events(run: Path, kind: str) -> list[dict[str, Any]]:
    """The events of one kind in a run's log."""
    lines = (run / "log.jsonl").read_text().splitlines()
    return [e for e in map(json.loads, lines) if e["event"] == kind]


def comparable(run: Path, *kinds: str) -> list[dict[str, Any]]:
    """Events without what depends on the clock and the machine."""
    return [{k: v for k, v in e.items() if k not in _TIMES} for kind in kinds for e in events(run, kind)]


def check_curves(single: Path) -> None:
    """TensorBoard shows each step of a run once, with the value in its log."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = EventAccumulator(str(single))
    board.Reload()
    for key, name in (("loss", "loss"), ("top1", "accuracy"), ("lr", "lr")):
        scalars = board.Scalars(f"train/{name}")
        assert [s.step for s in scalars] == [e["step"] for e in events(single, "step")]
        assert [s.value for s in scalars] == pytest.approx([e[key] for e in events(single, "step")], rel=1e-6)
    assert [s.value for s in board.Scalars("val/accuracy")] == pytest.approx(
        [100 * e["val_top1_correct"] / 37 for e in events(single, "epoch")]
    )


def state_of(run: Path) -> dict[str, Any]:
    """What a run's state.json holds."""
    state: dict[str, Any] = json.loads((run / "state.json").read_text())
    return state


def wait_for_step(run: Path, step: int = 1, ended: Callable[[], bool] = lambda: False) -> None:
    """Wait until a run has logged step number `step` or a later one."""
    log = run / "log.jsonl"
    wait_until(lambda: log.exists() and any(e["step"] >= step for e in events(run, "step")), ended)


def wait_until(what: Callable[[], bool], ended: Callable[[], bool] = lambda: False) -> None:
    """Wait until `what` is so, for two minutes at most and while what is waited for has not `ended`."""
    deadline = time.monotonic() + 120
    while not what():
        assert time.monotonic() < deadline, "not in time"
        assert not ended(), "it has ended before"
        time.sleep(0.01)


def tensors(state: Any, prefix: str = "") -> dict[str, torch.Tensor]:
    """All tensors in a nested structure by their place."""
    if isinstance(state, torch.Tensor):
        return {prefix: state}
    items = state.items() if isinstance(state, dict) else enumerate(state) if isinstance(state, list) else ()
    return {k: t for key, value in items for k, t in tensors(value, f"{prefix}/{key}").items()}


def final_tensors(run: Path) -> dict[str, torch.Tensor]:
    """All tensors of a run's last checkpoint."""
    return tensors(torch.load(run / "checkpoints" / "last.pt", weights_only=True))


def equal_runs(one: Path, two: Path) -> bool:
    """Whether two runs ended with the same bits."""
    first, second = final_tensors(one), final_tensors(two)
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)
