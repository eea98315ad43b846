"""Bad input gets one clear sentence, exit code 2 and no traceback."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from helpers.commands import Refuses, evaluate, train
from helpers.images import save_image
from helpers.runs import SMALL

FOLDER = ["--config", "resnet18.yaml", "train.batch_size=8", "train.micro_batch=4", "augment.size=32"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--config", "smoke.yaml", "train.epoch=3"], "unknown key train.epoch; did you mean train.epochs?"),
        (["--config", "smoke.yaml", "train.epochs=many"], "valid integer"),
        (["--config", "smoke.yam"], "did you mean smoke.yaml"),
        (["--config", "smoke.yaml", "train.batch_size=50"], "must be a multiple of train.micro_batch"),
        (["--config", "smoke.yaml", "model.arch=resnext50"], "unknown network 'resnext50'"),
        (["--config", "smoke.yaml", "data.train_images=7"], "7 training images cannot fill"),
        (["--config", "smoke.yaml", "model.num_classes=11"], "model.num_classes is 11 but the data has 10"),
        (["--config", "smoke.yaml", "train.precision=fp16"], "needs a GPU"),
        (["--config", "resnet18.yaml"], "data.root is not set"),
        (["--config", "resnet18.yaml", "data.root=/nowhere"], "data folder /nowhere/train not found"),
        (["--config", "smoke.yaml", "--resume", "none.pt"], "none.pt not found"),
    ],
)
def test_recipes(arguments: list[str], told: str, refuses: Refuses, tmp_path: Path) -> None:
    assert told in refuses(train, *arguments, "--out", str(tmp_path / "run"))
    assert not (tmp_path / "run").exists(), "nothing is written before the input is known to be good"


def test_an_empty_class_folder(image_root: Path, tmp_path: Path, refuses: Refuses) -> None:
    (image_root / "train" / "yak").mkdir()
    error = refuses(train, *FOLDER, f"data.root={image_root}", "--out", str(tmp_path / "run"))
    assert f"class folder {image_root}/train/yak holds no images" in error


def test_classes_that_differ(image_root: Path, tmp_path: Path, refuses: Refuses) -> None:
    shutil.rmtree(image_root / "val" / "emu")
    save_image(image_root / "val" / "yak" / "0.JPEG")
    error = refuses(train, *FOLDER, f"data.root={image_root}", "--out", str(tmp_path / "run"))
    assert "only in train: emu; only in val: yak" in error


def test_a_flat_validation_folder(image_root: Path, tmp_path: Path, refuses: Refuses) -> None:
    shutil.rmtree(image_root / "val")
    save_image(image_root / "val" / "ILSVRC2012_val_00000001.JPEG")
    error = refuses(train, *FOLDER, f"data.root={image_root}", "--out", str(tmp_path / "run"))
    assert "1 images but no class folders; sort them" in error


def test_an_unreadable_image_is_named(image_root: Path, tmp_path: Path, refuses: Refuses) -> None:
    bad = image_root / "val" / "dog" / "1.JPEG"
    bad.write_bytes(bad.read_bytes()[:40])
    error = refuses(train, *FOLDER, f"data.root={image_root}", "data.workers=1", "--out", str(tmp_path / "run"))
    assert f"{bad} cannot be read" in error


@pytest.mark.parametrize("resume", ["auto", "never"])
def test_a_run_folder_that_is_taken(resume: str, tmp_path: Path, refuses: Refuses) -> None:
    out = tmp_path / "run"
    out.mkdir()
    (out / "recipe.yaml").write_text("model: {arch: resnet34}\n")
    error = refuses(train, "--config", "smoke.yaml", "--out", str(out), "--resume", resume)
    assert f"{out} already holds a run" in error
    if resume == "auto":
        assert "model.arch: resnet34 -> resnext14_8x4d" in error


def test_a_run_folder_that_cannot_be_made(tmp_path: Path, refuses: Refuses) -> None:
    (tmp_path / "file").write_text("")
    error = refuses(train, "--config", "smoke.yaml", *SMALL, "--out", str(tmp_path / "file" / "run"))
    assert "cannot be written: Not a directory; choose another --out" in error


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
    assert ("not found" if kind == "missing" else "is not a checkpoint") in error
    assert ("only running code could restore" in error) == (kind in ("code", "text"))
    assert not (tmp_path / "evil").exists()
    if kind != "missing":
        error = refuses(train, "--config", "smoke.yaml", *SMALL, "--out", str(tmp_path / "r"), "--resume", str(path))
        assert "is not a checkpoint" in error


def test_foreign_weights_need_a_recipe_that_fits(tmp_path: Path, refuses: Refuses) -> None:
    torch.save({"conv1.weight": torch.zeros(1)}, tmp_path / "w.pth")
    assert "give the recipe of its weights with --config" in refuses(evaluate, "--ckpt", str(tmp_path / "w.pth"))
    error = refuses(evaluate, "--ckpt", str(tmp_path / "w.pth"), "--config", "smoke.yaml", *SMALL)
    assert "does not fit the network: it lacks bn1.weight" in error


def test_a_result_file_in_no_folder_is_refused_before_evaluating(tmp_path: Path, refuses: Refuses) -> None:
    torch.save({"conv1.weight": torch.zeros(1)}, tmp_path / "w.pth")
    error = refuses(evaluate, "--ckpt", str(tmp_path / "w.pth"), "--json", str(tmp_path / "no" / "x.json"))
    assert "make it first" in error


def test_a_missing_section_is_laid_to_the_file_not_to_an_override(tmp_path: Path, refuses: Refuses) -> None:
    (tmp_path / "r.yaml").write_text("train: {epochs: 2}\n")
    error = refuses(train, "--config", str(tmp_path / "r.yaml"), "data.root=/x")
    assert f"error: {tmp_path / 'r.yaml'}: model: is missing" in error
