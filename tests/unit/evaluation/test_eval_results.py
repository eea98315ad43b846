"""The results of the eval command, against the run's and against plain torch."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from helpers.commands import evaluate, train
from helpers.runs import SMALL


@pytest.mark.slow
def test_training_and_evaluating_a_folder_of_images(
    image_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    shared = [a for a in SMALL if not a.startswith(("data.", "train.batch", "train.micro"))]
    folder = ["data.source=folder", f"data.root={image_root}", "data.workers=2"]
    batch = ["train.batch_size=8", "train.micro_batch=4"]
    assert train(["--config", "smoke.yaml", *shared, *folder, *batch, "--out", str(out)]) == 0
    best = json.loads((out / "summary.json").read_text())["best"]
    for data in (image_root, image_root / "val"):
        target = tmp_path / "result.json"
        ckpt = str(out / "checkpoints" / "best.pt")
        assert evaluate(["--ckpt", ckpt, "--data", str(data), "--json", str(target)]) == 0
        result = json.loads(target.read_text())
        assert [result[k] for k in ("count", "top1_correct")] == [9, best["top1_correct"]]

    # A subset of the classes is mapped by name, not by position.
    per_class = {}
    for name in ("dog", "emu"):
        only = tmp_path / name
        only.mkdir()
        (only / name).symlink_to(image_root / "val" / name)
        assert evaluate(["--ckpt", ckpt, "--data", str(only), "--json", str(target)]) == 0
        per_class[name] = json.loads(target.read_text())["top1_correct"]
    both = tmp_path / "both"
    both.mkdir()
    for name in per_class:
        (both / name).symlink_to(image_root / "val" / name)
    assert evaluate(["--ckpt", ckpt, "--data", str(both), "--json", str(target)]) == 0
    assert json.loads(target.read_text())["top1_correct"] == sum(per_class.values())
    (both / "yak").symlink_to(image_root / "val" / "cat")
    capsys.readouterr()
    assert evaluate(["--ckpt", ckpt, "--data", str(both)]) == 2
    assert ": yak\n" in capsys.readouterr().err


def test_foreign_weights_are_evaluated_with_a_recipe(image_root: Path, tmp_path: Path) -> None:
    import torchvision
    from torchvision.io import decode_image
    from torchvision.transforms import v2

    torch.manual_seed(0)
    network = torchvision.models.resnet18(num_classes=3)
    torch.save({"state_dict": {f"module.{k}": v for k, v in network.state_dict().items()}}, tmp_path / "w.pth")
    target = tmp_path / "result.json"
    arguments = ["--ckpt", str(tmp_path / "w.pth"), "--config", "resnet18.yaml", "--data", str(image_root)]
    options = [
        "eval.resize=40",
        "eval.crop=32",
        "train.precision=fp32",
        "data.workers=0",
        "--json",
        str(target),
    ]
    assert evaluate([*arguments, *options]) == 0
    bicubic = v2.InterpolationMode.BICUBIC
    steps = [v2.Resize(40, bicubic), v2.CenterCrop(32), v2.ToDtype(torch.float32, scale=True)]
    transform = v2.Compose([*steps, v2.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))])
    files = sorted((image_root / "val").rglob("*.JPEG"))
    images = torch.stack([transform(decode_image(str(f))) for f in files])
    labels = torch.tensor([["cat", "dog", "emu"].index(f.parent.name) for f in files])
    with torch.no_grad():
        logits = network.eval()(images)
    result = json.loads(target.read_text())
    assert result["top1_correct"] == int((logits.argmax(1) == labels).sum())
    assert result["top5_correct"] == result["count"] == 9, "top-5 of three classes is always right"
    assert result["loss"] == pytest.approx(torch.nn.functional.cross_entropy(logits, labels).item(), rel=1e-4)
