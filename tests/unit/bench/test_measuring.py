"""What is measured, and what follows from it; how long it takes is no matter for tests."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision

from helpers.packs import needs_jpegtran
from resnext_train.bench import TIERS
from resnext_train.bench.bench_report import report
from resnext_train.bench.image_sample import evenly, in_tiers
from resnext_train.bench.interleaved_timing import Lap, Runner, in_turns, microseconds, rate_of
from resnext_train.bench.timed_pipelines import reference_pipelines, timed, training_pipeline
from resnext_train.config import load_recipe
from resnext_train.data.build_loaders import build_color_transform
from resnext_train.data.sources.class_subset import ImageSubset
from resnext_train.data.sources.image_folder import ImageFolder
from resnext_train.errors import InputError

RECIPE = load_recipe("resnet18.yaml", ["augment.size=32", "train.batch_size=8", "train.micro_batch=4"])


def test_rounds_are_in_turns_and_the_first_does_not_count() -> None:
    order: list[str] = []

    def runner(name: str) -> Runner:
        def run(number: int) -> Lap:
            order.append(f"{name}{number}")
            return Lap(6, 2.0 if number == 1 else 3.0, {"read": 0.3})

        return run

    laps = in_turns("test", {"a": runner("a"), "b": runner("b")}, 2)
    assert order == ["a0", "b0", "a1", "b1", "a2", "b2"]
    assert rate_of(laps["a"]) == {"median": 2.5, "lowest": 2.0, "highest": 3.0, "rounds": [3.0, 2.0]}
    assert microseconds(laps["b"], "read") == pytest.approx(50_000)
    assert microseconds(laps["b"]) == pytest.approx(2.5e6 / 6)


@pytest.mark.parametrize(
    ("workers", "asked", "counted"), [(0, 6, 6), (1, 2, 4), (1, 6, 6), (2, 6, 8), (4, 6, 16), (3, 13, 15)]
)
def test_only_what_comes_after_the_first_items_is_timed(
    workers: int, asked: int, counted: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrived, ranges = 0, []

    def pipeline(processes: int, steps: range) -> Iterator[tuple[torch.Tensor, list[int]]]:
        nonlocal arrived
        assert processes == workers
        ranges.append(steps)
        for _ in steps:
            arrived += 1
            yield torch.zeros(3), [0, 1, 2]

    monkeypatch.setattr(time, "perf_counter", lambda: float(arrived))
    run = timed(pipeline, workers, asked)
    for _ in range(2):
        arrived = 0
        lap = run(len(ranges))
        assert (lap.images, lap.seconds, arrived) == (3 * counted, counted, 4 * workers + counted)
    assert ranges[0].start + arrived == ranges[1].start, "every pass takes other crops"
    assert all(len(steps) == arrived + 4 * workers for steps in ranges), "the processes are busy until the end"


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
    with pytest.raises(InputError, match=f"^{bad} .*data.on_bad_image=skip"):
        evenly(folder, 24, skip=False)
    sample, unreadable, _ = evenly(folder, 24, skip=True)
    assert (len(sample), unreadable) == (23, 1)
    assert str(bad) not in {sample.name(i) for i in range(23)}
    with pytest.raises(InputError, match=r"^1 of 2 .*resnext prepare check"):
        evenly(ImageSubset(folder, np.array([0, 11])), 2, skip=True)


@needs_jpegtran
def test_every_tier_sees_the_same_images_and_crops(image_root: Path, tmp_path: Path) -> None:
    sample, _, _ = evenly(ImageFolder(image_root / "train"), 7, skip=False)
    stored = in_tiers(sample, image_root, ["folder", "exact"], tmp_path)
    assert list(stored) == ["folder", "exact"]
    assert all(size and size > 0 for _, size in stored.values())
    files, pack = (list(training_pipeline(RECIPE, images, 3)(0, range(4))) for images, _ in stored.values())
    assert [len(batch.labels) for batch in files] == [3] * 4, "the seventh image is left out of each epoch"
    assert not torch.equal(files[0].images, files[2].images), "every epoch takes other crops"
    for one, other in zip(files, pack, strict=True):
        assert torch.equal(one.images, other.images)
        assert torch.equal(one.labels, other.labels)


@pytest.mark.parametrize("colour", [False, True])
def test_a_lap_adds_up_the_stages(colour: bool, image_root: Path) -> None:
    sample, _, _ = evenly(ImageFolder(image_root / "train"), 8, skip=False)
    pipeline = training_pipeline(RECIPE, sample, 4)
    lap = timed(pipeline, 0, 3, build_color_transform(RECIPE) if colour else None)(1)
    assert lap.images == 12
    assert list(lap.stages) == ["read", "decode", "resize", "colour"]
    assert all(lap.stages[stage] > 0 for stage in ("read", "decode", "resize"))
    assert (lap.stages["colour"] > 0) == colour
    assert sum(lap.stages.values()) < lap.seconds


def test_references_make_normalised_batches_of_the_same_files(image_root: Path) -> None:
    recipe = load_recipe("resnet18.yaml", ["augment.size=32", "data.mean=[2, 2, 2]"])
    sample, _, _ = evenly(ImageFolder(image_root / "train"), 8, skip=False)
    references = reference_pipelines(recipe, sample, 4)
    assert list(references) == ["Pillow", "Pillow + ColorJitter", "torchvision.io", "torchvision.io + ColorJitter"]
    for pipeline in references.values():
        batches = [images for images, _ in pipeline(0, range(3))]
        assert [tuple(images.shape) for images in batches] == [(4, 3, 32, 32)] * 3
        assert all(images.dtype == torch.float32 and images.max() < 0 for images in batches)
        labels = torch.cat([labels for _, labels in pipeline(1, range(2))])
        assert sorted(labels.tolist()) == sorted(sample.labels.tolist())


def test_a_torchvision_that_decodes_no_more_is_left_out(image_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torchvision.io, "decode_image")
    recipe = load_recipe("resnet18.yaml", ["augment.size=32"])
    sample, _, _ = evenly(ImageFolder(image_root / "train"), 8, skip=False)
    assert list(reference_pipelines(recipe, sample, 4)) == ["Pillow", "Pillow + ColorJitter"]


def test_the_report_fits_into_100_columns() -> None:
    rate = {"median": 12_345.6, "lowest": 11_234.5, "highest": 13_456.7, "rounds": [12_345.6]}
    references = ("Pillow", "Pillow + ColorJitter", "torchvision.io", "torchvision.io + ColorJitter")
    measured = {"where": "/data/imagenet/train", "storage": "folder", "files": 512, "unreadable": 0}
    measured |= {"height": 375.0, "width": 500.0, "crop": 224, "images": 512, "micro_batch": 32, "rounds": 5}
    lines = report(
        {
            "measured": measured,
            "workers": 90,
            "cores": 96,
            "rates": {n: {"one": rate, "all": rate, "floats": rate} for n in (*TIERS, *references)},
            "microseconds": dict.fromkeys(
                TIERS, dict.fromkeys(("read", "decode", "resize", "rest", "colour"), 1_234.5)
            ),
            "bytes_per_image": dict.fromkeys(TIERS, 258_033.0),
            "ratios": dict.fromkeys(references, dict.fromkeys(("floats", "all"), dict.fromkeys(TIERS, 12.34))),
            "jpeg": {"decoders": ["simplejpeg 1.9.0", "torchvision 0.29.1+cu130", "Pillow 13.0.0"], "passed_over": {}},
            "notes": [],
        }
    ).split("\n")
    assert max(map(len, lines)) <= 100
    rows = [" ".join(line.split()) for line in lines]
    assert "raw 12,346 11,234-13,457 12,346 11,234-13,457 12,346 11,234-13,457" in rows
    assert "raw 1234 1234 1234 1234 1234 258,033" in rows
    assert "Pillow: in all, uint8 × 12.34 × 12.34 × 12.34 × 12.34" in rows
