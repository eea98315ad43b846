"""Which stage is named as slow, and with which remedy."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest
import torch

from helpers.commands import train
from helpers.runs import events
from resnext_train.data.decode.lazy_image import LazyImage
from resnext_train.data.image_batch import LoadReport
from resnext_train.data.slow_loader import Workers, slow_stage
from resnext_train.data.sources.image_folder import ImageFolder
from resnext_train.data.sources.image_source import FILES, MEMORY, Storage
from resnext_train.training.throughput import DataWait, Lap

EXACT, RAW = Storage("exact", ""), Storage("raw", "")
FULL = Workers(4, 4)


def report(read: float, decode: float, resize: float, operations: float = 0.0) -> LoadReport:
    return LoadReport(read, decode, resize, 0, (), operations)


@pytest.mark.parametrize(
    ("stages", "storage", "workers", "stage", "remedy"),
    [
        (report(30, 5, 1), FILES, FULL, "read", r" 83 % .*`resnext prepare pack"),
        (report(30, 5, 1), RAW, FULL, "read", "faster disk"),
        (report(1, 30, 8), FILES, FULL, "decode", "--tier exact`"),
        (report(1, 30, 8), EXACT, FULL, "decode", "--tier resized"),
        (report(1, 30, 8), EXACT, Workers(4, 7), "decode", "data.workers .*4 .*7"),
        (report(1, 3, 32), RAW, FULL, "resize", "cores"),
        (report(1, 3, 8, 12), RAW, FULL, "operations", "50 % .*more cores"),
        (report(1, 3, 1), EXACT, FULL, "hand-over", "idle"),
        (report(0, 0, 0), MEMORY, Workers(0, 3), "decode", "data.workers .*0 .*3"),
    ],
)
def test_the_slow_stage(stages: LoadReport, storage: Storage, workers: Workers, stage: str, remedy: str) -> None:
    if not workers.started:
        stages = report(0, 9, 1)
    named, sentence = slow_stage(stages, 10.0, workers, storage)
    assert named == stage
    assert re.search(remedy, sentence)


def lap(steps: int, waited: float) -> Lap:
    return Lap(10.0, waited, steps, 640, report(0.0, 9.0, 0.5))


def test_a_long_wait_is_told_once_after_a_hundred_steps() -> None:
    watch = DataWait(Workers(1, 1), FILES)
    assert watch.add(lap(50, 9.0)) is None, "the first lap waits for the processes to start"
    assert watch.add(lap(50, 2.0)) is None
    told = watch.add(lap(50, 1.0))
    assert told is not None
    assert told["data_wait"] == pytest.approx(0.15)
    assert re.search(r"\b15 % .*\b100 steps.*\b95 %", told["text"])
    assert watch.add(lap(100, 5.0)) is None, "not told again"


def test_a_wait_of_a_tenth_is_not_told() -> None:
    watch = DataWait(Workers(1, 1), FILES)
    watch.add(lap(100, 9.0))
    assert watch.add(lap(100, 1.0)) is None
    assert watch.add(lap(100, 1.1)) is not None


@pytest.mark.slow
def test_a_starved_run_says_so_in_its_log(
    image_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Reading an image takes 5 ms, and nothing is read ahead: much longer than a tenth of a step of a tiny network."""
    read = ImageFolder.image

    def image(self: ImageFolder, i: int) -> LazyImage:
        time.sleep(0.005)
        return read(self, i)

    monkeypatch.setattr(ImageFolder, "image", image)
    torch.set_num_threads(1)  # quick steps also beside other jobs
    overrides = [
        *("data.source=folder", f"data.root={image_root}", "data.workers=0", "augment.size=32", "eval.every_epochs=18"),
        *("train.batch_size=4", "train.micro_batch=4", "train.epochs=18", "checkpoint.every_epochs=18", "log.every=1"),
        *(
            "model.arch=resnext14_2x4d",
            "model.width=0.25",
            "eval.resize=36",
            "eval.crop=32",
            "schedule.warmup=0",
            "log.to=[]",
            "train.precision=fp32",
        ),
        *("eval.resize=36", "eval.crop=32"),
    ]
    assert train(["--config", "smoke.yaml", "--out", str(tmp_path / "run"), *overrides]) == 0
    (told,) = events(tmp_path / "run", "slow_data")
    assert told["stage"] == "read"
    assert told["data_wait"] > 0.1
    assert told["text"] in capsys.readouterr().err
    assert "`resnext prepare pack" in told["text"]
