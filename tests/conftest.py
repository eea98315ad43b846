"""Small real files and real processes for the tests; nothing here needs a network, a GPU or a data set."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

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
    "train.batch_size=16",
    "train.micro_batch=4",
    "train.epochs=2",
    "train.precision=fp32",
    "schedule.warmup=0",
    "log.every=2",
    "log.tensorboard=false",
]
"""Overrides that turn smoke.yaml into a run of a few seconds: 3 steps an epoch, and 4 images too few for a step."""


@pytest.fixture(autouse=True)
def _private_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(autouse=True)
def _keep_torch_settings() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def save_image(path: Path, size: tuple[int, int] = (48, 40), seed: int = 0, **options: Any) -> Path:
    """A smooth random RGB image of (width, height), which JPEG does not garble, as a file."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (5, 6, 3), dtype=np.uint8))
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse.resize(size, Image.Resampling.BICUBIC).save(path, **options)
    return path


@pytest.fixture
def image_root(tmp_path: Path) -> Path:
    """A data root: train/ and val/ with three classes of JPEGs of several sizes."""
    root = tmp_path / "images"
    seed = 0
    for split, per_class in (("train", 8), ("val", 3)):
        for name in ("cat", "dog", "emu"):
            for i in range(per_class):
                seed += 1
                save_image(root / split / name / f"{i}.JPEG", (40 + 3 * i, 60 - 2 * i), seed)
    return root


def run_module(*arguments: str, processes: int = 1, threads: int = 1, cwd: Path | None = None) -> str:
    """Run `python -m resnext_train ...`, under torchrun if `processes` > 1; its output. Fails the test if it fails."""
    done = start_module(*arguments, processes=processes, threads=threads, cwd=cwd)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Warning" not in done.stderr
    return done.stdout


def start_module(
    *arguments: str, processes: int = 1, threads: int = 1, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Like `run_module`, whatever the exit code."""
    launcher = [sys.executable]
    if processes > 1:
        launcher += ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    return subprocess.run(
        [*launcher, "-m", "resnext_train", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
        cwd=cwd,
        env={**os.environ, "OMP_NUM_THREADS": str(threads)},
    )


def events(run: Path, kind: str) -> list[dict[str, Any]]:
    """The events of one kind in a run's log."""
    lines = (run / "log.jsonl").read_text().splitlines()
    return [e for e in map(json.loads, lines) if e["event"] == kind]


def tensors(state: Any, prefix: str = "") -> dict[str, torch.Tensor]:
    """All tensors in a nested structure by their place."""
    if isinstance(state, torch.Tensor):
        return {prefix: state}
    items = state.items() if isinstance(state, dict) else enumerate(state) if isinstance(state, list) else ()
    return {k: t for key, value in items for k, t in tensors(value, f"{prefix}/{key}").items()}


Refuses = Callable[..., str]


@pytest.fixture
def refuses(capsys: pytest.CaptureFixture[str]) -> Refuses:
    """Call a command's main and return the one sentence with which it refuses, after checking exit code and form."""

    def call(main: Callable[[list[str]], int], *arguments: str) -> str:
        assert main(list(arguments)) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1, error
        assert ": error: " in error
        assert "Traceback" not in error
        return error

    return call
