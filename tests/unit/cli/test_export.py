"""Exported weights give the same logits in other people's networks."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import safetensors
import torch
import torchvision
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck

from helpers.commands import Refuses, evaluate, export, train
from helpers.runs import RUN
from resnext_train.checkpoint import checkpoint_file
from resnext_train.config import recipe_from_dict
from resnext_train.models.build_model import build_model


def trained(folder: Path, *overrides: str) -> Path:
    """A checkpoint of a short run, whose weights and running statistics have moved."""
    options = [*RUN, "model.width=1", "train.epochs=1", *overrides]
    assert train([*options, "--out", str(folder)]) == 0
    return folder / "checkpoints" / "last.pt"


def logits(model: nn.Module, images: Tensor) -> Tensor:
    with torch.no_grad():
        computed: Tensor = model.eval()(images)
    return computed


def images(dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(3, 3, 48, 48, dtype=dtype, generator=torch.Generator().manual_seed(1))


def network_of(path: Path) -> nn.Module:
    """The network of one of our checkpoints, with its average where it has one, by the checkpoint alone."""
    content = checkpoint_file.load(path)
    model = build_model(recipe_from_dict(content["recipe"], "checkpoint").model, len(content["classes"]))
    model.load_state_dict(content["ema"]["weights"] if "ema" in content else content["model"])
    return model


@pytest.mark.slow
@pytest.mark.parametrize(
    ("overrides", "block", "options"),
    [
        (["model.arch=resnext14_8x4d"], Bottleneck, {"groups": 8, "width_per_group": 4}),
        (
            ["model.arch=resnext14_4x4d", "model.form=a"],
            Bottleneck,
            {"groups": 4, "width_per_group": 4},
        ),
        (["model.arch=resnet10", "model.blocks=[1,1,1,1]", "ema.decay=0.5"], BasicBlock, {}),
    ],
)
def test_to_torchvision(
    overrides: list[str],
    block: type[BasicBlock | Bottleneck],
    options: dict[str, Any],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    last = trained(tmp_path / "run", *overrides)
    out = [tmp_path / "w.pth", tmp_path / "w.safetensors"]
    weights = ["--weights", "ema"] if "ema.decay=0.5" in overrides else []
    assert export(["--ckpt", str(last), *weights, "--out", *map(str, out)]) == 0
    printed = capsys.readouterr().out
    assert all(re.search(rf"^{re.escape(str(path))}: .*\btorchvision\b", printed, re.MULTILINE) for path in out)
    assert json.loads((tmp_path / "w.json").read_text())["classes"] == checkpoint_file.load(last)["classes"]
    theirs = torchvision.models.resnet.ResNet(block, [1, 1, 1, 1], num_classes=4, **options)
    theirs.load_state_dict(torch.load(out[0], weights_only=True))
    with torch.no_grad():
        expected = network_of(last).double().eval()(images(torch.float64))
        torch.testing.assert_close(theirs.double().eval()(images(torch.float64)), expected, rtol=1e-10, atol=1e-10)
    with safetensors.safe_open(out[1], "pt") as file:
        assert json.loads(file.metadata()["classes"]) == checkpoint_file.load(last)["classes"]
        assert all(torch.equal(file.get_tensor(k), v) for k, v in torch.load(out[0], weights_only=True).items())


@pytest.mark.slow
def test_a_detection_backbone_of_torchvision_takes_the_weights(tmp_path: Path) -> None:
    """What detection on COCO starts from: torchvision's resnet_fpn_backbone, loaded without the classifier."""
    from torchvision.models.detection.backbone_utils import resnet_fpn_backbone

    last = trained(tmp_path / "run", "model.arch=resnext50_32x4d", "train.max_steps=2", "optimizer.lr=1e-3")
    out = tmp_path / "w.safetensors"
    assert export(["--ckpt", str(last), "--out", str(out)]) == 0
    weights = checkpoint_file.load_file(out)
    # Its default normalisation, FrozenBatchNorm2d, computes what BN does in evaluation and keeps no batch counter.
    body = {k: v for k, v in weights.items() if not k.startswith("fc.") and "num_batches" not in k}
    backbone = resnet_fpn_backbone(backbone_name="resnext50_32x4d", weights=None)
    backbone.body.load_state_dict(body)
    seen: list[Tensor] = []
    ours = network_of(last)
    for name in ("layer1", "layer2", "layer3", "layer4"):
        ours.get_submodule(name).register_forward_hook(lambda *a: seen.append(a[2]))
    logits(ours, images())
    with torch.no_grad():
        features = backbone.body.eval()(images())
    for mine, other in zip(seen, features.values(), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-3, atol=1e-3 * float(mine.abs().max()))


def test_networks_that_torchvision_has_not_and_foreign_weights(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(torchvision.models.resnet18(num_classes=6).state_dict(), tmp_path / "foreign.pth")
    again = tmp_path / "again.safetensors"
    assert export(["--ckpt", str(tmp_path / "foreign.pth"), "--config", "resnet18", "--out", str(again)]) == 0
    assert re.search(r"/foreign\.pth: .*\btorchvision\b", capsys.readouterr().out)
    expected = torch.load(tmp_path / "foreign.pth", weights_only=True)
    assert all(torch.equal(v, expected[k]) for k, v in checkpoint_file.load_file(again).items())
    last = trained(tmp_path / "run", "model.arch=resnet8")
    assert export(["--ckpt", str(last), "--out", str(tmp_path / "cifar.pt")]) == 0
    assert re.search(r"cifar\.pt: .*\bresnext-train\b", capsys.readouterr().out)


def test_a_file_that_reads_back_otherwise_is_removed(
    tmp_path: Path, refuses: Refuses, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights, out = tmp_path / "w.pth", tmp_path / "o.safetensors"
    torch.save(torchvision.models.resnet18(num_classes=6).state_dict(), weights)
    whole = checkpoint_file.save_weights

    def spoils(tensors: dict[str, Tensor], path: Path, metadata: dict[str, str] | None) -> None:
        whole({**tensors, "layer3.0.bn2.bias": tensors["layer3.0.bn2.bias"] + 1e-3}, path, metadata)

    monkeypatch.setattr(checkpoint_file, "save_weights", spoils)
    error = refuses(export, "--ckpt", str(weights), "--config", "resnet18", "--out", str(out))
    assert f"{out}, " in error
    assert " torchvision's " in error
    assert not out.exists()


def test_third_party_networks(tmp_path: Path, refuses: Refuses, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text("model: {arch: torchvision/squeezenet1_1}\neval: {resize: 64, crop: 64}\n")
    weights, out = tmp_path / "w.pth", tmp_path / "o.pth"
    network = torchvision.models.squeezenet1_1(num_classes=6)
    torch.save(network.state_dict(), weights)
    assert export(["--ckpt", str(weights), "--config", str(recipe), "--out", str(out)]) == 0
    assert " torchvision/squeezenet1_1," in capsys.readouterr().out
    for tensor in network.parameters():
        torch.nn.init.zeros_(tensor)
    torch.save(network.state_dict(), weights)  # logits of 0 everywhere are equal, too
    assert export(["--ckpt", str(weights), "--config", str(recipe), "--out", str(tmp_path / "zero.pth")]) == 0
    torch.save({k: v * torch.nan for k, v in network.state_dict().items()}, weights)
    error = refuses(export, "--ckpt", str(weights), "--config", str(recipe), "--out", str(tmp_path / "nan.pth"))
    assert "finite" in error
    assert not (tmp_path / "nan.pth").exists()


def test_refusals(tmp_path: Path, refuses: Refuses) -> None:
    weights = tmp_path / "w.pth"
    torch.save(torchvision.models.resnet18(num_classes=6).state_dict(), weights)
    for out, options, told in [
        (tmp_path / "o.pth", [], (f" {weights} ", "--config")),
        (tmp_path / "o.bin", [], ("--out: ", "o.bin ", ".safetensors, .pth, .pt")),
        (weights, [], (f"--out: {weights} exists",)),
        (tmp_path / "no" / "o.pth", [], ("--out: ", f"folder of {tmp_path / 'no' / 'o.pth'} ")),
        (tmp_path / "o.pth", ["--config", "resnet34"], (f" {weights} ", "lacks layer1.2.conv1.weight")),
    ]:
        error = refuses(export, "--ckpt", str(weights), *options, "--out", str(out))
        assert all(fact in error for fact in told), error
    assert not (tmp_path / "o.pth").exists()


def test_an_exported_file_evaluates_as_its_checkpoint(tmp_path: Path, refuses: Refuses) -> None:
    last = trained(tmp_path / "run", "model.arch=resnext14_2x4d", "model.width=0.25")
    files = [tmp_path / name for name in ("w.safetensors", "w.pth")]
    assert export(["--ckpt", str(last), "--out", *map(str, files)]) == 0
    results = []
    for number, path in enumerate([last, *files]):
        told = tmp_path / f"{number}.json"
        assert evaluate(["--ckpt", str(path), "--json", str(told)]) == 0
        results.append(json.loads(told.read_text()))
    keys = ("count", "top1_correct", "top5_correct", "loss", "protocol", "arch")
    assert [[result[key] for key in keys] for result in results[1:]] == [[results[0][key] for key in keys]] * 2
    again = tmp_path / "again.safetensors"
    assert "--config" in refuses(export, "--ckpt", str(files[0]), "--config", "resnet18", "--out", str(again))
    assert export(["--ckpt", str(files[0]), "--out", str(again)]) == 0
    with safetensors.safe_open(again, "pt") as second, safetensors.safe_open(files[0], "pt") as first:
        assert second.metadata() == first.metadata()  # its checksum of the weights too


def test_formats(tmp_path: Path, refuses: Refuses, monkeypatch: pytest.MonkeyPatch) -> None:
    """The suffix says the format; --format says it where there is no known one, and never the contrary."""
    weights = tmp_path / "w.pth"
    torch.save(torchvision.models.resnet18(num_classes=6).state_dict(), weights)
    given = ["--ckpt", str(weights), "--config", "resnet18"]
    for out, form, told in [
        ("o.onnx", "hf", ("o.onnx", "onnx", "hf")),
        ("o.pth", "safetensors", ("o.pth", "pth", "safetensors")),
        ("o.bin", "tflite", ("--format tflite", "torch_export")),
    ]:
        error = refuses(export, *given, "--out", str(tmp_path / out), "--format", form)
        assert all(fact in error for fact in told), error
    (tmp_path / "taken.json").touch()
    for outs in (["o.pth", "o.pt"], ["o.pth", "o.pth"], ["taken.pth"]):
        assert ".json" in refuses(export, *given, "--out", *(str(tmp_path / out) for out in outs)) or outs[0] == outs[1]
    monkeypatch.setattr("resnext_train.export.export_formats.find_spec", lambda library: None)
    assert "resnext-train[onnx]" in refuses(export, *given, "--out", str(tmp_path / "o.onnx"))
    assert "resnext-train[timm]" in refuses(export, *given, "--out", str(tmp_path / "o"))
    assert sorted(path.name for path in tmp_path.glob("o*")) == []
    assert export([*given, "--out", str(tmp_path / "o.bin"), "--format", "pth"]) == 0
    assert torch.load(tmp_path / "o.bin", weights_only=True)["fc.bias"].shape == (6,)
    assert (tmp_path / "o.json").is_file()
