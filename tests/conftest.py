"""Small real files and real processes for the tests; nothing here needs a network, a GPU or a data set."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torchvision.datasets import CIFAR10, CIFAR100

try:
    from hypothesis import settings
except ImportError:  # as on a host without the developer's tools, where only scripts.gpu_check runs
    pass
else:
    # Tests of properties try the same cases on every machine, so that what fails in one place fails in all. To search
    # for new ones, many times as long: python -m pytest --hypothesis-profile=deep tests/data/test_sampler_properties.py
    settings.register_profile("same", derandomize=True, database=None, deadline=None, max_examples=60)
    settings.register_profile("deep", deadline=None, max_examples=5000)
    settings.load_profile("same")


def pytest_configure(config: pytest.Config) -> None:
    """Hide the GPUs, so that tests of the CPU run on it everywhere, and so do the processes they start.

    A host with fewer GPUs than a test has ranks would refuse them. `pytest -m gpu` runs the tests of the GPU.
    """
    if config.option.markexpr != "gpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in a shell's background job; processes would inherit it
        signal.signal(signal.SIGINT, signal.default_int_handler)


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


class _PickleOfPython2(pickle.Pickler):
    """Arrays as in the published CIFAR files, which were written by Python 2.

    They hold 0 for the flag `align` of the array's type, which releases of NumPy 2.4 warn of unless it is False;
    later ones let 0 pass. 1, which means the same for bytes, is warned of by them all.
    """

    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, np.dtype):
            return np.dtype, (value.str[1:], 1, 1), (3, "|", None, None, None, -1, -1, 0)
        return NotImplemented


def _write_pickle(path: Path, content: dict[str, Any]) -> str:
    """Write `content` as Python 2 would; the MD5 sum of the file."""
    file = io.BytesIO()
    _PickleOfPython2(file, protocol=2).dump(content)
    data = file.getvalue().replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    path.write_bytes(data)
    return hashlib.md5(data).hexdigest()


MakeCifar = Callable[[Path, str], dict[str, NDArray[np.uint8]]]


@pytest.fixture
def make_cifar(monkeypatch: pytest.MonkeyPatch) -> MakeCifar:
    """Write a CIFAR of 20 training and 6 test images in the published format, which torchvision then takes for it.

    Returns the rows of 3072 bytes of each split.
    """

    def make(root: Path, title: str) -> dict[str, NDArray[np.uint8]]:
        dataset, label_key = (CIFAR10, "labels") if title == "CIFAR-10" else (CIFAR100, "fine_labels")
        classes = int(title.removeprefix("CIFAR-"))
        folder = root / dataset.base_folder
        folder.mkdir(parents=True)
        rng = np.random.default_rng(classes)
        written = {}
        for split, listed, images in (("train", dataset.train_list, 20), ("test", dataset.test_list, 6)):
            rows = rng.integers(0, 256, (images, 3072), dtype=np.uint8)
            labels = rng.integers(0, classes, images)
            parts = zip(listed, np.array_split(rows, len(listed)), np.array_split(labels, len(listed)), strict=True)
            sums = [
                [name, _write_pickle(folder / name, {"data": data, label_key: label.tolist(), "batch_label": ""})]
                for (name, _), data, label in parts
            ]
            monkeypatch.setattr(dataset, f"{split}_list", sums)
            written[split] = rows
        names = {dataset.meta["key"]: [f"class {c}" for c in range(classes)]}
        md5 = _write_pickle(folder / dataset.meta["filename"], names)
        monkeypatch.setattr(dataset, "meta", {**dataset.meta, "md5": md5})
        return written

    return make


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
