"""Bad input gets one clear sentence, exit code 2 and no traceback."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from helpers.commands import Refuses, error_line, evaluate, train
from helpers.images import save_image
from helpers.runs import SMALL
from resnext_train.cli.main import main

SENTENCES = {
    "train --config smoke lr=3": "override 'lr=3': overrides are written section.key=value, such as train.epochs=10; "
    "did you mean optimizer.lr=3?",
    "eval --ckpt nowhere.pt": "--ckpt: checkpoint nowhere.pt not found",
    "predict --ckpt nowhere.pt a.jpg": "--ckpt: checkpoint nowhere.pt not found",
    "info --match resnet50": "--match NETWORK and --cardinality C belong together: --match resnet50 --cardinality 16",
    "report nowhere": "nowhere is no folder; name a run folder, or one that holds some",
    "export --ckpt nowhere.pt --out w.pth": "--ckpt: checkpoint nowhere.pt not found",
    "prepare pack images pack --size 256": "--size is for --tier resized and raw; tier exact keeps every pixel",
    "prepare imagenet --out pack": "give --train-tar, --val-tar or both",
    "prepare check x": "x is neither a folder nor a .csv file; give one with images, or a table of path,label",
    "prepare unpack x out": "x holds no finished pack, and neither do its train and val; give a pack's folder",
    "bench data --config smoke --tiers zip": "--tiers zip: must be among folder, exact, resized, raw",
    "bench step --config smoke --rounds 0": "--rounds 0: must be at least 1",
    "bench scaling --config smoke --procs two": "--procs two: must be numbers of processes with commas between them, "
    "as in 1,2,4",
    "verify --config smoke --kills 0": "--kills must be at least 1",
}
"""What each command says; the other tests of refusals look for keys, paths and numbers only."""

FOLDER = ["--config", "resnet18.yaml", "train.batch_size=8", "train.micro_batch=4", "augment.size=32"]


@pytest.mark.parametrize("words", SENTENCES)
def test_every_command_refuses_in_one_sentence(
    words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = words.split()
    assert main(arguments) == 2
    command = " ".join(arguments[:2]) if arguments[0] in ("prepare", "bench") else arguments[0]
    assert capsys.readouterr().err == error_line(command, SENTENCES[words])


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--config", "smoke.yaml", "train.epoch=3"], ("train.epoch;", "train.epochs?")),
        (["--config", "smoke.yaml", "train.epochs=many"], ("train.epochs: ", "integer", "'many'")),
        (["--config", "smoke.yam"], ("smoke.yam ", "mean smoke?")),
        (
            ["--config", "smoke.yaml", "train.batch_size=50"],
            ("train.batch_size (50) ", " 48 ", " 64,", "train.micro_batch"),
        ),
        (["--config", "smoke.yaml", "model.arch=resnext50"], ("model.arch: ", "'resnext50'", "resnext50_32x4d")),
        (["--config", "smoke.yaml", "data.train_images=7"], (" 7 ", "train.batch_size")),
        (["--config", "smoke.yaml", "model.num_classes=11"], ("model.num_classes ", " 11 ", " 10 ")),
        (["--config", "smoke.yaml", "train.precision=fp16"], ("train.precision=fp16 ", " GPU")),
        (["--config", "resnet18.yaml"], ("data.root=/path/to/images",)),
        (["--config", "resnet18.yaml", "data.root=/nowhere"], (" /nowhere/train ", "data.root")),
        (["--config", "smoke.yaml", "--resume", "none.pt"], ("--resume: ", "none.pt")),
    ],
)
def test_recipes(arguments: list[str], told: tuple[str, ...], refuses: Refuses, tmp_path: Path) -> None:
    error = refuses(train, *arguments, "--out", str(tmp_path / "run"))
    assert all(fact in error for fact in told), error
    assert not (tmp_path / "run").exists(), "nothing is written before the input is known to be good"


def test_an_empty_class_folder(image_root: Path, tmp_path: Path, refuses: Refuses) -> None:
    (image_root / "train" / "yak").mkdir()
    error = refuses(train, *FOLDER, f"data.root={image_root}", "--out", str(tmp_path / "run"))
    assert f" {image_root}/train/yak " in error


def test_classes_that_differ(image_root: Path, tmp_path: Path, refuses: Refuses) -> None:
    shutil.rmtree(image_root / "val" / "emu")
    save_image(image_root / "val" / "yak" / "0.JPEG")
    error = refuses(train, *FOLDER, f"data.root={image_root}", "--out", str(tmp_path / "run"))
    assert re.search(r"\btrain: emu; .*\bval: yak\b", error)


def test_a_flat_validation_folder(image_root: Path, tmp_path: Path, refuses: Refuses) -> None:
    shutil.rmtree(image_root / "val")
    save_image(image_root / "val" / "ILSVRC2012_val_00000001.JPEG")
    error = refuses(train, *FOLDER, f"data.root={image_root}", "--out", str(tmp_path / "run"))
    assert f"{image_root / 'val'} " in error
    assert " 1 images " in error


def test_an_unreadable_image_is_named(image_root: Path, tmp_path: Path, refuses: Refuses) -> None:
    bad = image_root / "val" / "dog" / "1.JPEG"
    bad.write_bytes(bad.read_bytes()[:40])
    error = refuses(train, *FOLDER, f"data.root={image_root}", "data.workers=1", "--out", str(tmp_path / "run"))
    assert f"{bad} " in error
    assert "data.on_bad_image=skip" in error


@pytest.mark.parametrize("resume", ["auto", "never"])
def test_a_run_folder_that_is_taken(resume: str, tmp_path: Path, refuses: Refuses) -> None:
    out = tmp_path / "run"
    out.mkdir()
    (out / "recipe.yaml").write_text("model: {arch: resnet34}\n")
    error = refuses(train, "--config", "smoke.yaml", "--out", str(out), "--resume", resume)
    assert f"{out} " in error
    assert ("model.arch: resnet34 -> resnext14_8x4d" in error) == (resume == "auto")
    assert (f"--resume {out / 'checkpoints' / 'last.pt'}" in error) == (resume == "auto")


def test_a_run_folder_that_cannot_be_made(tmp_path: Path, refuses: Refuses) -> None:
    (tmp_path / "file").write_text("")
    error = refuses(train, "--config", "smoke.yaml", *SMALL, "--out", str(tmp_path / "file" / "run"))
    assert all(fact in error for fact in (f"{tmp_path / 'file' / 'run'} ", "Not a directory", "--out")), error


class Evil:
    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Path]]:
        return Path.touch, (Path("evil"),)


@pytest.mark.parametrize("kind", ["missing", "text", "empty", "truncated", "other", "code"])
def test_checkpoints_that_are_none(
    kind: str, tmp_path: Path, refuses: Refuses, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "x.pt"
    contents: dict[str, object] = {
        "other": {"epoch": 3},
        "code": {"model": Evil()},
        "truncated": {"a": torch.zeros(999)},
    }
    if kind in contents:
        torch.save(contents[kind], path)
    if kind == "truncated":
        path.write_bytes(path.read_bytes()[:-500])
    if kind in ("text", "empty"):
        path.write_text("no checkpoint" if kind == "text" else "")
    error = refuses(evaluate, "--ckpt", str(path), "--config", "smoke.yaml")
    assert str(path) in error
    assert ("not found" in error) == (kind == "missing")
    assert ("running code" in error) == (kind in ("code", "text"))
    assert not (tmp_path / "evil").exists()
    if kind != "missing":
        error = refuses(train, "--config", "smoke.yaml", *SMALL, "--out", str(tmp_path / "r"), "--resume", str(path))
        assert str(path) in error
        assert "not found" not in error


def test_foreign_weights_need_a_recipe_that_fits(tmp_path: Path, refuses: Refuses) -> None:
    torch.save({"conv1.weight": torch.zeros(1)}, tmp_path / "w.pth")
    weights = tmp_path / "w.pth"
    error = refuses(evaluate, "--ckpt", str(weights))
    assert f" {weights} " in error
    assert "--config" in error
    error = refuses(evaluate, "--ckpt", str(weights), "--config", "smoke.yaml", *SMALL)
    assert f" {weights} " in error
    assert "lacks bn1.weight" in error


def test_a_result_file_in_no_folder_is_refused_before_evaluating(tmp_path: Path, refuses: Refuses) -> None:
    torch.save({"conv1.weight": torch.zeros(1)}, tmp_path / "w.pth")
    error = refuses(evaluate, "--ckpt", str(tmp_path / "w.pth"), "--json", str(tmp_path / "no" / "x.json"))
    assert "--json: " in error
    assert f" {tmp_path / 'no' / 'x.json'} " in error


def test_a_missing_section_is_laid_to_the_file_not_to_an_override(tmp_path: Path, refuses: Refuses) -> None:
    (tmp_path / "r.yaml").write_text("train: {epochs: 2}\n")
    error = refuses(train, "--config", str(tmp_path / "r.yaml"), "data.root=/x")
    assert f"error: {tmp_path / 'r.yaml'}: model: " in error
