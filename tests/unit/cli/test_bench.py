"""resnext bench data, with a few small images."""

from __future__ import annotations

import json
import re
import tempfile
from multiprocessing.util import get_temp_dir
from pathlib import Path
from typing import Any

import PIL
import pytest
import torch
import torchvision

from helpers.commands import Refuses, bench
from helpers.packs import RAW, needs_jpegtran, packed
from helpers.runs import SMALL
from resnext_train.bench import TIERS
from resnext_train.prepare import pack_records
from resnext_train.prepare.image_splits import FolderSplit

FEW = ["--images", "10", "--rounds", "1"]
FOLDER = ["data", "--config", "resnet18.yaml", *FEW, "augment.size=32", "train.batch_size=8", "train.micro_batch=4"]
SYNTHETIC = ["data", "--config", "smoke.yaml", *FEW, *SMALL]


def bench_to_json(path: Path, *arguments: str) -> dict[str, Any]:
    assert bench([*arguments, "--json", str(path)]) == 0
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def check_rates(result: dict[str, Any], tiers: list[str]) -> None:
    """Every rate is positive, and what follows from rates does."""
    assert list(result["microseconds"]) == list(result["bytes_per_image"]) == tiers
    assert list(result["rates"]) == [*tiers, *result["ratios"]]
    several = result["workers"] > 1
    for rates in result["rates"].values():
        assert set(rates) == {"one", "floats"} | ({"all"} if several else set())
        for rate in rates.values():
            assert len(rate["rounds"]) == result["measured"]["rounds"]
            assert 0 < rate["lowest"] <= rate["median"] <= rate["highest"]
    for tier, times in result["microseconds"].items():
        assert list(times) == ["read", "decode", "resize", "rest", "colour"]
        assert all(times[stage] > 0 for stage in ("read", "decode", "resize", "colour"))
        if result["measured"]["rounds"] == 1:
            one = sum(times.values()) - times["colour"]
            assert 1e6 / one == pytest.approx(result["rates"][tier]["one"]["median"])
    for reference, ratios in result["ratios"].items():
        assert list(ratios) == ["floats", "all" if several else "one"]
        for scope, by_tier in ratios.items():
            theirs = result["rates"][reference][scope]["median"]
            expected = {tier: result["rates"][tier][scope]["median"] / theirs for tier in tiers}
            assert by_tier == pytest.approx(expected)


@pytest.mark.slow
@needs_jpegtran
def test_a_folder_in_every_tier_beside_the_references(
    image_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    get_temp_dir()  # for the sockets of loader processes: not in the folder below
    with tempfile.TemporaryDirectory() as scratch:  # sockets allow no path as long as tmp_path
        monkeypatch.setattr("tempfile.tempdir", scratch)
        _bench_every_tier(image_root, tmp_path, Path(scratch), capsys)


def _bench_every_tier(image_root: Path, tmp_path: Path, scratch: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.set_num_threads(2)
    arguments = [*FOLDER, "--data", str(image_root), "--workers", "2", "--baseline", "auto_augment.name=randaugment"]
    result = bench_to_json(tmp_path / "out.json", *arguments)
    assert torch.get_num_threads() == 2
    assert not list(scratch.iterdir()), "the packs are removed"
    measured = result["measured"]
    numbers = [measured[name] for name in ("files", "images", "micro_batch", "rounds")]
    assert numbers == [10, 12, 4, 1]
    assert (measured["where"], measured["storage"]) == (str(image_root / "train"), "folder")
    check_rates(result, list(TIERS))
    assert list(result["ratios"]) == [
        "Pillow",
        "Pillow + ColorJitter",
        "torchvision.io",
        "torchvision.io + ColorJitter",
    ]
    assert result["bytes_per_image"]["raw"] > result["bytes_per_image"]["exact"] > 0
    assert result["workers"] == 2
    out = capsys.readouterr().out
    for told in (
        "sample: 10 different ones",
        "a pass: 12 images or more in micro-batches of 4; median of 1 pass",
        "2 processes",
        "torchvision.io + ColorJitter: in all, uint8",
        "crops: 32 × 32 pixels",
        "auto_augment=randaugment: ours do its operations, the references do not",
        "docs/gpu-rates.md",
    ):
        assert told in out


def test_a_pack_alone(image_root: Path, tmp_path: Path) -> None:
    packed(FolderSplit(image_root / "train"), tmp_path / "pack" / "train", RAW)
    for root in (tmp_path / "pack", tmp_path / "pack" / "train"):
        result = bench_to_json(tmp_path / "out.json", *FOLDER, "--data", str(root), "--workers", "1")
        check_rates(result, ["raw"])
        assert result["measured"]["where"] == str(tmp_path / "pack" / "train")
        assert not result["ratios"]
        shards = sum(p.stat().st_size - 64 for p in (tmp_path / "pack" / "train").glob("shard-*.bin"))
        assert result["bytes_per_image"]["raw"] == pytest.approx(shards / 24)


def test_synthetic_images_without_loader_processes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = bench_to_json(tmp_path / "out.json", *SYNTHETIC)
    check_rates(result, ["memory"])
    assert result["bytes_per_image"]["memory"] is None
    assert result["workers"] == 0
    assert f"torchvision {torchvision.__version__}" in result["jpeg"]["decoders"]
    assert f"Pillow {PIL.__version__}" == result["jpeg"]["decoders"][-1]
    out = capsys.readouterr().out
    assert "images: in memory\nsample: 10 different ones, 40 × 40 pixels" in out
    assert re.search(r"^ +training +one process,$", out, re.MULTILINE)
    assert "crops: 32 × 32 pixels" in out


def test_without_jpegtran_tier_exact_is_left_out(
    image_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("resnext_train.bench.image_sample.find_jpegtran", lambda: None)
    arguments = [*FOLDER, "--data", str(image_root), "--tiers", "exact", "raw", "data.workers=0", "train.seed=3"]
    check_rates(bench_to_json(tmp_path / "out.json", *arguments), ["raw"])
    assert re.search(r"\bexact .*\bjpegtran\b", capsys.readouterr().out)


def test_a_bad_image_is_left_out_if_the_recipe_says_so(
    image_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (image_root / "train" / "cat" / "0.JPEG").write_bytes(b"\xff\xd8\xff")
    arguments = [*FOLDER, "--data", str(image_root), "--tiers", "raw", "data.workers=0", "data.on_bad_image=skip"]
    assert bench_to_json(tmp_path / "out.json", *arguments)["measured"]["unreadable"] == 1
    assert "1 left out" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([*SYNTHETIC, "--images", "1"], ("--images 1: ", " 2")),
        ([*SYNTHETIC, "--rounds", "0"], ("--rounds 0: ", " 1")),
        ([*SYNTHETIC, "--tiers", "zip"], ("--tiers zip: ", "folder, exact, resized, raw")),
        ([*SYNTHETIC, "--tiers", "train.seed=1"], ("--tiers ", "no tier", "folder, exact, resized, raw")),
        ([*SYNTHETIC, "--tiers", "raw"], ("--tiers ", " memory")),
        ([*SYNTHETIC, "--baseline"], ("--baseline ", " memory", "--data")),
        ([*SYNTHETIC, "--json", "nowhere/out.json"], ("--json: ", "nowhere/out.json")),
        ([*SYNTHETIC, "--workers", "many"], ("data.workers", "many")),
        ([*SYNTHETIC, "--workers", "-1"], ("data.workers", "-1")),
        ([*SYNTHETIC, "train.epoch=3"], ("train.epoch;", "train.epochs?")),
        (FOLDER, ("data.root=/path/to/images",)),
        ([*FOLDER, "--data", "/nowhere"], (" /nowhere ", "data.root")),
    ],
)
def test_refusals(arguments: list[str], told: tuple[str, ...], refuses: Refuses) -> None:
    error = refuses(bench, *arguments)
    assert all(fact in error for fact in told), error


def test_refusals_that_depend_on_the_images(
    image_root: Path, tmp_path: Path, refuses: Refuses, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = [*FOLDER, "--data", str(image_root)]
    padded = ["--config", "cifar/resnet20.yaml", "--data", str(image_root), "--baseline"]
    assert "augment.crop=pad" in refuses(bench, "data", *padded)
    monkeypatch.setattr("resnext_train.bench.image_sample.find_jpegtran", lambda: None)
    assert re.search(r"\bexact .*\bjpegtran\b", refuses(bench, *folder, "--tiers", "exact"))
    packed(FolderSplit(image_root / "train"), tmp_path / "pack", pack_records.Tier("raw", 24, None, None))
    pack = [*FOLDER, "--data", str(tmp_path / "pack")]
    for options in (["--baseline"], ["--tiers", "exact"]):
        error = refuses(bench, *pack, *options)
        assert all(fact in error for fact in (options[0], f" {tmp_path}/pack ", " tier raw")), error
    bad = image_root / "train" / "cat" / "0.JPEG"
    bad.write_bytes(b"")
    error = refuses(bench, *folder)
    assert f"{bad} " in error
    assert "data.on_bad_image=skip" in error
