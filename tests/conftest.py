"""Fixtures and hooks of all tests. Nothing here needs a network, a GPU or a data set."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torchvision.datasets import CIFAR10, CIFAR100

from helpers.commands import Command, Refuses, train
from helpers.images import MakeCifar, save_image, write_pickle
from helpers.runs import RUN
from helpers.shared import made_once
from resnext_train.distributed.usable_cores import usable_cores

collect_ignore_glob = []
try:
    from hypothesis import settings
except ImportError:  # as on a host without the developer's tools, where only the tests of the GPU run
    collect_ignore_glob = ["*_properties.py"]
else:
    # Tests of properties try the same cases on every machine, so that what fails in one place fails in all. To search
    # for new ones: python -m pytest --hypothesis-profile=deep tests/unit/data/test_sampler_properties.py
    settings.register_profile("same", derandomize=True, database=None, deadline=None, max_examples=60)
    settings.register_profile("deep", deadline=None, max_examples=5000)
    settings.load_profile("same")


@pytest.hookimpl(optionalhook=True)  # of pytest-xdist
def pytest_xdist_auto_num_workers() -> int:
    """Start one worker more than there are cores, as some tests wait: for other processes, disks or a time to pass."""
    return usable_cores() + 1


def pytest_configure(config: pytest.Config) -> None:
    """Hide the GPUs, so that tests of the CPU run on it everywhere, and so do the processes they start.

    A host with fewer GPUs than a test has ranks would refuse them. `pytest -m gpu` runs the tests of the GPU.
    """
    if config.option.markexpr != "gpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    # Ignored as in a shell's background job, or under nohup; the processes that tests start would inherit it.
    for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, handler)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what this machine does not allow."""
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device, and `pytest -m gpu` to see it")
    if item.get_closest_marker("root") and os.geteuid() != 0:
        pytest.skip("needs root, for mounts or network namespaces")


@pytest.fixture(autouse=True)
def _private_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(autouse=True)
def _keep_torch_settings() -> Iterator[None]:
    """Put back what a test, or a run in its process, has set in torch: other tests would compute other bits."""
    threads, cudnn = torch.get_num_threads(), torch.backends.cudnn
    flags = cudnn.benchmark, cudnn.deterministic
    operations = (cudnn.conv, torch.backends.cuda.matmul)  # type: ignore[attr-defined]
    precisions = [operation.fp32_precision for operation in operations]
    yield
    torch.set_num_threads(threads)
    cudnn.benchmark, cudnn.deterministic = flags
    for operation, precision in zip(operations, precisions, strict=True):
        operation.fp32_precision = precision


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an undisturbed run of `RUN`, on one process with one thread."""

    def run(out: Path) -> None:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        assert train([*RUN, "--out", str(out)]) == 0
        torch.set_num_threads(threads)

    return made_once(tmp_path_factory, "whole", run)


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
                [name, write_pickle(folder / name, {"data": data, label_key: label.tolist(), "batch_label": ""})]
                for (name, _), data, label in parts
            ]
            monkeypatch.setattr(dataset, f"{split}_list", sums)
            written[split] = rows
        names = {dataset.meta["key"]: [f"class {c}" for c in range(classes)]}
        md5 = write_pickle(folder / dataset.meta["filename"], names)
        monkeypatch.setattr(dataset, "meta", {**dataset.meta, "md5": md5})
        return written

    return make


@pytest.fixture
def refuses(capsys: pytest.CaptureFixture[str]) -> Refuses:
    """Call a command and return the one sentence with which it refuses, after checking exit code and form."""

    def call(command: Command, *arguments: str) -> str:
        assert command(arguments) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1, error
        assert ": error: " in error
        assert "Traceback" not in error
        return error

    return call
