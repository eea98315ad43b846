"""Evaluation among some of a network's classes, against the same logits in plain torch.

ImageNet-5K in small: a network of four classes, and validation images of two of them.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torchvision.io import decode_image
from torchvision.transforms import v2

from helpers.commands import Refuses, evaluate, train
from helpers.images import save_image
from helpers.runs import events
from helpers.shared import made_once
from resnext_train.config import recipe_from_dict
from resnext_train.models.build_model import build_model

CLASSES = ["cat", "dog", "emu", "fox"]
RECIPE = """
model: {arch: resnext14_2x4d}
data: {workers: 0, val_classes: subset}
augment: {size: 32}
train: {epochs: 4, batch_size: 16, micro_batch: 8, precision: fp32}
optimizer: {lr: 0.01}
schedule: {warmup: 0}
eval: {resize: 36, crop: 32, batch_size: 4}
log: {to: []}
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Training images of four classes, validation images of two."""

    def save(root: Path) -> None:
        seed = 0
        for split, classes, each in (("train", CLASSES, 8), ("val", ["dog", "fox"], 9)):
            for name in classes:
                for i in range(each):
                    seed += 1
                    save_image(root / split / name / f"{i}.png", seed=seed)
        (root / "r.yaml").write_text(RECIPE)

    return made_once(tmp_path_factory, "eval_classes", save)


@pytest.fixture(scope="module")
def network(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of a network of four classes."""
    return made_once(tmp_path_factory, "eval_classes_run", lambda out: trained(root, out))


def trained(root: Path, out: Path, *overrides: str) -> Path:
    assert train(["--config", str(root / "r.yaml"), f"data.root={root}", "--out", str(out), *overrides]) == 0
    return out


def listed(tmp_path: Path, *names: str) -> str:
    path = tmp_path / "classes.txt"
    path.write_text("\n".join(names))
    return f"eval.classes={path}"


def result(run: Path, *arguments: str) -> dict[str, Any]:
    target = run.parent / f"result_of_{os.getpid()}.json"
    assert evaluate(["--ckpt", str(run / "checkpoints" / "last.pt"), "--json", str(target), *arguments]) == 0
    read: dict[str, Any] = json.loads(target.read_text())
    return read


def plain(run: Path, root: Path, among: list[str]) -> dict[str, Any]:
    """The images of `among` only, and the softmax over `among` only."""
    state = torch.load(run / "checkpoints" / "last.pt", weights_only=True)
    model = build_model(recipe_from_dict(state["recipe"], "recipe").model, 4)
    model.load_state_dict(state["model"])
    steps = [v2.Resize(36, v2.InterpolationMode.BICUBIC), v2.CenterCrop(32), v2.ToDtype(torch.float32, scale=True)]
    transform = v2.Compose([*steps, v2.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))])
    files = [f for f in sorted((root / "val").rglob("*.png")) if f.parent.name in among]
    with torch.no_grad():
        logits = model.eval()(torch.stack([transform(decode_image(str(f))) for f in files]))
    share = {name: logits[:, CLASSES.index(name)].double().exp() for name in among}
    correct, loss = 0, 0.0
    for i, file in enumerate(files):
        label = file.parent.name
        correct += max(among, key=lambda name: share[name][i].item()) == label
        loss -= (share[label][i] / sum(share[name][i] for name in among)).log().item() / len(files)
    return {"count": len(files), "top1_correct": correct, "loss": pytest.approx(loss, rel=1e-4)}


@pytest.mark.parametrize("among", [["dog", "fox"], ["fox", "cat", "dog"], ["emu", "fox"], CLASSES])
def test_predictions_are_made_among_the_listed_classes(
    among: list[str], network: Path, root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whether or not the data has images of them: the last list is the 5K-way evaluation, the first the 1K-way."""
    got = result(network, listed(tmp_path, *among))
    expected = plain(network, root, among)
    assert {key: got[key] for key in expected} == expected
    assert got["top5_correct"] == got["count"] == (9 if "dog" not in among else 18)
    assert f"centre crop 32, 1 view, among {len(among)} of 4 classes, mean 0.485 0.456 0.406, std" in got["protocol"]
    assert got["protocol"] in capsys.readouterr().out


def test_without_a_list_predictions_are_made_among_all_classes(network: Path, root: Path, tmp_path: Path) -> None:
    got, expected = result(network), plain(network, root, CLASSES)
    assert {key: got[key] for key in expected} == expected
    assert "among" not in got["protocol"]
    assert [e["val_top1_correct"] for e in events(network, "epoch")][-1] == got["top1_correct"]
    among_two = result(network, listed(tmp_path, "dog", "fox"))
    assert among_two["top1_correct"] > got["top1_correct"], "or the tests here would prove little"


def test_a_folder_lists_as_a_file_does(network: Path, root: Path, tmp_path: Path) -> None:
    results = [result(network, of) for of in (listed(tmp_path, "fox", "dog"), f"eval.classes={root / 'val'}")]
    for r in results:
        del r["images_per_s"], r["eval"]["classes"]
    assert results[0] == results[1]


def test_training_evaluates_as_the_eval_command_does(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = trained(root, tmp_path / "run", listed(tmp_path, "fox", "emu", "dog"), "train.epochs=1")
    printed = capsys.readouterr().out
    assert "1 view, among 3 of 4 classes, mean 0.485 0.456 0.406, std 0.229 0.224 0.225, every epoch" in printed
    last = json.loads((out / "summary.json").read_text())["last"]
    expected = plain(out, root, ["fox", "emu", "dog"])
    assert {key: last[key] for key in expected} == expected
    got = result(out)
    assert {key: got[key] for key in expected} == expected, "the list belongs to the checkpoint's recipe"
    assert "among" not in result(out, "eval.classes=null")["protocol"]


def test_only_listed_images_are_announced(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trained(root, tmp_path / "run", listed(tmp_path, "dog"), "--dry-run")
    assert "4 classes, 32 training, 9 validation images" in capsys.readouterr().out


def test_images_of_unknown_classes_are_left_to_the_list(
    network: Path, root: Path, tmp_path: Path, refuses: Refuses
) -> None:
    shutil.copytree(root, tmp_path / "data")
    save_image(tmp_path / "data" / "val" / "yak" / "0.png")
    data = ["--data", str(tmp_path / "data")]
    ckpt = ["--ckpt", str(network / "checkpoints" / "last.pt"), *data]
    error = refuses(evaluate, *ckpt)
    assert ": yak\n" in error
    assert "eval.classes" not in error
    error = refuses(evaluate, *ckpt, listed(tmp_path, "dog", "yak"))
    assert ": yak\n" in error
    assert f"eval.classes: {tmp_path / 'classes.txt'} " in error
    assert result(network, listed(tmp_path, "dog", "fox"), *data)["count"] == 18


def test_a_list_that_cannot_be_used_is_refused_before_anything_is_written(
    root: Path, tmp_path: Path, refuses: Refuses
) -> None:
    out = tmp_path / "run"
    arguments = ["--config", str(root / "r.yaml"), f"data.root={root}", "--out", str(out)]
    error = refuses(train, *arguments, f"eval.classes={tmp_path / 'cow.txt'}")
    assert f"eval.classes: {tmp_path / 'cow.txt'} " in error
    error = refuses(train, *arguments, listed(tmp_path, "dog", "cow"))
    assert f"eval.classes: {tmp_path / 'classes.txt'} " in error
    assert ": cow\n" in error
    assert not out.exists()
