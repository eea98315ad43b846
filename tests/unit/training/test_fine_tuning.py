"""Runs that start from weights in a file."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
import torchvision
from torchvision.transforms.v2 import functional as F

from helpers.commands import Refuses, evaluate, train
from helpers.runs import SMALL
from resnext_train.checkpoint import checkpoint_file

RUN = ["--config", "smoke.yaml", *SMALL, "model.arch=resnet18", "model.width=1", "optimizer.lr=1e-8", "train.epochs=1"]


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    torch.manual_seed(1)
    path = tmp_path / "resnet18.pth"
    torch.save({"state_dict": torchvision.models.resnet18(num_classes=1000).state_dict()}, path)
    return path


def said_of(weights: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """What a run has said of the weights it starts from."""
    begin = f"weights: {weights}: "
    (line,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith(begin))
    return line.removeprefix(begin)


@pytest.mark.slow
def test_a_run_starts_from_the_weights_says_so_and_continues_without_them(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    arguments = [*RUN, f"model.weights={weights}", "--out", str(out)]
    assert train(arguments) == 0
    told = said_of(weights, capsys)
    assert "torchvision" in told
    assert re.search(r"\bfc .*\b1000 .*\b4\b", told)
    start = torch.load(weights, weights_only=True)["state_dict"]
    end = checkpoint_file.load(out / "checkpoints" / "last.pt")["model"]
    for name in ("conv1.weight", "layer4.1.conv2.weight", "layer2.0.downsample.0.weight"):
        torch.testing.assert_close(end[name], start[name], rtol=0, atol=1e-6)
    assert end["fc.weight"].shape == (4, 512)
    assert torch.all(end["bn1.running_mean"] != 0), "statistics have moved by three steps"
    weights.unlink()
    last = out / "checkpoints" / "last.pt"
    assert train([*arguments, "--resume", str(last), "train.epochs=2"]) == 0
    assert checkpoint_file.load(last)["progress"]["step"] == 6


@pytest.mark.slow
def test_a_checkpoint_of_other_classes_gives_no_classifier_even_if_they_are_as_many(
    image_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, last = tmp_path / "first", tmp_path / "first" / "checkpoints" / "last.pt"
    three = [*RUN, "data.classes=3", "model.arch=resnext14_2x4d"]
    assert train([*three, "--out", str(first)]) == 0
    again = [*three, f"model.weights={last}", "train.max_steps=1"]
    assert train([*again, "--out", str(tmp_path / "same")]) == 0
    told = said_of(last, capsys)
    assert train([*three, f"model.weights={first}", "--dry-run", "--out", str(tmp_path / "best")]) == 0
    assert f"weights: {first / 'checkpoints' / 'best.pt'}: " in capsys.readouterr().out
    assert "resnext-train" in told
    assert "fc" not in told
    images = ["data.source=folder", f"data.root={image_root}"]
    own = [a for a in again if not a.startswith(("data.classes", "data.train", "data.val", "data.size"))]
    assert train([*own, *images, "--out", str(tmp_path / "other")]) == 0
    told = said_of(last, capsys)
    assert "resnext-train" in told
    assert re.search(r"\bfc .*\b3\b", told)


def test_weights_that_cannot_be_used(weights: Path, tmp_path: Path, refuses: Refuses) -> None:
    out = tmp_path / "run"
    error = refuses(train, *RUN, "model.weights=/nowhere/w.pth", "--out", str(out))
    assert "model.weights: checkpoint /nowhere/w.pth " in error
    error = refuses(train, *RUN, "model.arch=resnet34", f"model.weights={weights}", "--out", str(out))
    assert f"{weights} " in error
    assert "lacks layer1.2.conv1.weight" in error
    assert not out.exists()


def test_foreign_weights_on_some_of_their_classes(
    image_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], refuses: Refuses
) -> None:
    """Outputs 4, 1, 2 of six are what --classes calls cat, dog and emu: counted in plain torch from the same logits."""
    torch.manual_seed(3)
    network = torchvision.models.resnet18(num_classes=6).eval()
    weights, names = tmp_path / "w.pth", tmp_path / "names.txt"
    torch.save(network.state_dict(), weights)
    names.write_text("ant\ndog\nemu\nfox\ncat\ngnu\n")
    arguments = ["--ckpt", str(weights), "--config", "resnet18", "--data", str(image_root / "val")]
    sizes = ["eval.resize=36", "eval.crop=32", "eval.interpolation=bilinear", "train.precision=fp32"]
    error = refuses(evaluate, *arguments, *sizes)
    assert all(fact in error for fact in (f"{weights} ", " 6 ", " 3 ", "--classes")), error
    out = tmp_path / "result.json"
    assert evaluate([*arguments, *sizes, "--classes", str(names), "--json", str(out)]) == 0
    correct = total = 0
    for label, name in ((4, "cat"), (1, "dog"), (2, "emu")):
        for file in sorted((image_root / "val" / name).iterdir()):
            image = F.resize(torchvision.io.decode_image(str(file)), [36], antialias=True)
            pixels = F.center_crop(image, [32, 32]).float().div(255)
            pixels = F.normalize(pixels, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
            with torch.no_grad():
                correct += int(network(pixels[None]).argmax() == label)
            total += 1
    result = json.loads(out.read_text())
    assert (result["count"], result["top1_correct"]) == (total, correct)
    assert "--classes: " in refuses(evaluate, *arguments, *sizes, "--classes", str(tmp_path / "none.txt"))


def test_an_evaluation_of_foreign_weights_says_whose_they_are(
    weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = ["data.classes=1000", "data.val_images=20", "data.size=40", "eval.resize=36", "eval.crop=32"]
    assert evaluate(["--ckpt", str(weights), "--config", "smoke.yaml", "model.arch=resnet18", *data]) == 0
    out = capsys.readouterr().out
    assert re.search(rf"^weights: {re.escape(str(weights))}: .*\btorchvision\b", out, re.MULTILINE)
    assert " of 20; " in out
