"""What is measured, and what follows from it; how long it takes is no matter for tests."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from packs import needs_jpegtran

from resnext_train.bench import TIERS, timed_pipelines
from resnext_train.bench.bench_report import report
from resnext_train.bench.image_sample import Passes, evenly, in_tiers
from resnext_train.bench.interleaved_timing import Lap, in_turns, microseconds, on_one_core, rate_of
from resnext_train.bench.timed_pipelines import REFERENCES, ReadyBatches, batches_to_count, timed, train_batches
from resnext_train.config import load_recipe
from resnext_train.data.batch_datasets import TrainBatches
from resnext_train.data.decode.lazy_image import LazyImage
from resnext_train.data.image_batch import ImageBatch
from resnext_train.data.sampler import BatchIndices
from resnext_train.data.sources.image_folder import ImageFolder
from resnext_train.errors import InputError

RECIPE = load_recipe("resnet18.yaml", ["augment.size=32", "train.batch_size=8", "train.micro_batch=4"])


class Counting(ImageFolder):
    """A folder that counts what is asked of it."""

    asked = 0

    def image(self, i: int) -> LazyImage:
        self.asked += 1
        return super().image(i)


def test_rounds_are_in_turns_and_the_first_ones_may_not_count() -> None:
    order: list[str] = []

    def runner(name: str) -> object:
        def run(number: int) -> Lap:
            order.append(f"{name}{number}")
            return Lap(6, 2.0 if number == 1 else 3.0, {"read": 0.3})

        return run

    laps = in_turns("test", {"a": runner("a"), "b": runner("b")}, 2, discarded=1)  # type: ignore[dict-item]
    assert order == ["a0", "b0", "a1", "b1", "a2", "b2"]
    assert rate_of(laps["a"]) == {"median": 2.5, "lowest": 2.0, "highest": 3.0, "rounds": [3.0, 2.0]}
    assert microseconds(laps["b"], "read") == pytest.approx(50_000)
    assert microseconds(laps["b"]) == pytest.approx(2.5e6 / 6)


def test_only_what_comes_after_the_first_items_is_timed(image_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = train_batches(RECIPE, ImageFolder(image_root / "train"))
    arrived = 0

    def here(dataset: TrainBatches, sampler: Iterator[BatchIndices], workers: int) -> Iterator[object]:
        nonlocal arrived
        for indices in sampler:
            arrived += 1
            yield dataset[indices]

    monkeypatch.setattr(timed_pipelines, "_loaded", here)
    monkeypatch.setattr(timed_pipelines.time, "perf_counter", lambda: float(arrived))
    lap = timed(dataset, Passes(24, 4, 6, 0), workers=1)(0)
    assert (lap.seconds, lap.images, arrived) == (6, 24, 4 + 6)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system cannot keep a process on one core")
def test_a_process_is_kept_on_one_core_only_for_a_while() -> None:
    before = os.sched_getaffinity(0)

    def stop() -> None:
        with on_one_core() as core:
            assert os.sched_getaffinity(0) == {core}
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        stop()
    assert os.sched_getaffinity(0) == before


def test_a_pass_repeats_the_files_evenly_with_other_crops() -> None:
    passes = Passes(files=5, micro_batch=4, micro_batches=4, seed=3)
    micro_batches = passes.micro_batches_of(2)
    images = np.concatenate([b.images for b in micro_batches])
    assert len(images) == passes.images == 16
    assert np.bincount(images, minlength=5).min() == 3
    assert len({b.epoch for b in micro_batches}) == 4, "a repeated file gets another crop"
    endless = passes.from_(2)
    for batch in [*micro_batches, *passes.micro_batches_of(3)]:
        again = next(endless)
        assert again.epoch == batch.epoch
        assert again.images.tolist() == batch.images.tolist()


def test_a_sample_is_evenly_spaced(image_root: Path) -> None:
    folder = ImageFolder(image_root / "train")
    sample, unreadable, (height, width) = evenly(folder, 6, skip=False)
    assert [sample.name(i) for i in range(6)] == [folder.name(i) for i in (0, 4, 8, 12, 16, 20)]
    assert sample.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert unreadable == 0
    assert (width, height) == (40 + 3 * 2, 60 - 2 * 2)  # of images 0 and 4 of each class


def test_a_sample_of_more_than_there_are_is_all(image_root: Path) -> None:
    assert len(evenly(ImageFolder(image_root / "train"), 100, skip=False)[0]) == 24


def test_bad_images_are_refused_or_left_out(image_root: Path) -> None:
    bad = image_root / "train" / "dog" / "3.JPEG"
    bad.write_bytes(b"\xff\xd8\xff broken")
    folder = ImageFolder(image_root / "train")
    with pytest.raises(InputError, match=f"{bad} cannot be read: .*data.on_bad_image=skip"):
        evenly(folder, 24, skip=False)
    sample, unreadable, _ = evenly(folder, 24, skip=True)
    assert (len(sample), unreadable) == (23, 1)
    assert str(bad) not in {sample.name(i) for i in range(23)}


@needs_jpegtran
def test_every_tier_sees_the_same_images_and_crops(image_root: Path, tmp_path: Path) -> None:
    sample, _, _ = evenly(ImageFolder(image_root / "train"), 7, skip=False)
    stored = in_tiers(sample, image_root, ["folder", "exact"], tmp_path)
    assert list(stored) == ["folder", "exact"]
    assert all(size and size > 0 for _, size in stored.values())
    files, pack = (train_batches(RECIPE, images) for images, _ in stored.values())
    for indices in Passes(7, 4, 3, 0).micro_batches_of(1):
        one, other = files[indices], pack[indices]
        assert isinstance(one, ImageBatch)
        assert isinstance(other, ImageBatch)
        assert torch.equal(one.images, other.images)
        assert torch.equal(one.labels, other.labels)


@pytest.mark.parametrize("colour", [False, True])
def test_a_lap_makes_as_many_images_as_it_says(colour: bool, image_root: Path) -> None:
    source = Counting(image_root / "train")
    dataset = train_batches(RECIPE, source)
    lap = timed(dataset, Passes(24, 4, 2, 0), 0, dataset.color_transform if colour else None)(1)
    assert lap.images == source.asked == 8
    assert set(lap.stages) == {"read", "decode", "resize", "colour"}
    assert (lap.stages["colour"] > 0) == colour
    assert sum(lap.stages.values()) < lap.seconds


@pytest.mark.parametrize(("workers", "micro_batches"), [(0, 6), (1, 6), (2, 8), (4, 16)])
def test_every_loader_process_makes_as_many_micro_batches(workers: int, micro_batches: int) -> None:
    assert batches_to_count(Passes(24, 4, 6, 0), workers) == micro_batches


def test_micro_batches_through_the_loader_are_counted(image_root: Path) -> None:
    dataset = train_batches(RECIPE, ImageFolder(image_root / "train"))
    lap = timed(dataset, Passes(24, 4, 2, 0), 1)(0)
    assert lap.images == 16
    assert lap.seconds > 0


def test_what_is_handed_over_is_a_copy_of_a_batch(image_root: Path) -> None:
    passes = Passes(24, 4, 2, 0)
    indices = passes.micro_batches_of(0)[0]
    ready = train_batches(RECIPE, ImageFolder(image_root / "train"))[indices]
    assert isinstance(ready, ImageBatch)
    copies = ReadyBatches(ready, None)
    copy = copies[indices]
    assert torch.equal(copy.images, ready.images)
    assert copy.images.stride() == ready.images.stride()
    assert copy.images.data_ptr() != ready.images.data_ptr()
    assert timed(copies, passes, 0)(0).images == 8
    assert timed(copies, passes, 1)(0).images == 16


def test_the_report_fits_into_100_columns() -> None:
    rate = {"median": 12_345.6, "lowest": 11_234.5, "highest": 13_456.7, "rounds": [12_345.6]}
    stages = dict.fromkeys(("read", "decode", "resize", "colour", "hand_over"), 1_234.5)
    core = {"uint8": rate, "normalised": rate, "stages": stages, "loader_core": 9_876.5, "bytes_per_image": 258_033.0}
    ratios = dict.fromkeys(TIERS, dict.fromkeys(REFERENCES, 12.34))
    measured = {"where": "/data/imagenet/train", "storage": "folder", "files": 512, "unreadable": 0}
    measured |= {"height": 375.0, "width": 500.0, "crop": 224, "images": 512, "group": 32, "rounds": 5}
    lines = report(
        {
            "measured": measured,
            "workers": 90,
            "cores": 96,
            "per_core": dict.fromkeys(TIERS, core),
            "in_all": {tier: {"rate": rate, "one_process": rate, "scaling": 1.0} for tier in TIERS},
            "references": {
                "per_core": dict.fromkeys(REFERENCES, rate),
                "in_all": dict.fromkeys(REFERENCES, rate),
                "ratios_per_core": ratios,
                "ratios_in_all": ratios,
            },
            "notes": [],
        }
    ).split("\n")
    assert max(map(len, lines)) <= 100
    rows = [" ".join(line.split()) for line in lines]
    assert "raw 12,346 11,234-13,457 9,876 12,346 11,234-13,457 × 1.00" in rows
