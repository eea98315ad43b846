"""Exported graphs take any number of images and compute our logits; what disagrees is not kept."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

from helpers.exports import CLASSES, exported, logits_of, names_in, small_recipe
from resnext_train.errors import InputError
from resnext_train.export import torch_export_file, write_export
from resnext_train.export.exported_network import Agreement, ExportedNetwork
from resnext_train.models.weight_export import largest_difference


def images(count: int) -> torch.Tensor:
    return torch.randn(count, 3, 48, 48, generator=torch.Generator().manual_seed(70 + count))


@pytest.mark.slow
def test_onnx(tmp_path: Path) -> None:
    onnx, onnxruntime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    network, path = (
        exported(small_recipe("resnext14_2x4d", width=0.25, form="b", blur_pool=True)),
        tmp_path / "out" / "n.onnx",
    )
    path.parent.mkdir()
    assert write_export.write_export(network, path, "onnx").holds
    assert names_in(path.parent) == ["n.onnx"]
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    for count in (1, 3, 7):
        (theirs,) = session.run(["logits"], {"images": images(count).numpy()})
        assert largest_difference(logits_of(network.model, images(count)), torch.from_numpy(theirs)) < 1e-5
    told = session.get_modelmeta().custom_metadata_map
    assert json.loads(told["classes"]) == list(CLASSES)
    assert json.loads(told["recipe"])["model"]["arch"] == "resnext14_2x4d"
    assert (told["input_name"], told["crop"], json.loads(told["mean"])) == ("images", "48", [0.5, 0.4, 0.3])
    graph = onnx.load(path).graph
    assert not any(part.metadata_props for part in (*graph.node, *graph.input))
    assert str(Path(__file__).parents[3]).encode() not in path.read_bytes()


@pytest.mark.slow
def test_torch_export(tmp_path: Path) -> None:
    options = {"blur_pool": True, "bn_epsilon": 0.01, "stochastic_depth": 0.3}
    network, path = exported(small_recipe("resnext14_2x4d", width=0.5, **options)), tmp_path / "n.pt2"
    assert write_export.write_export(network, path, "torch_export").holds
    files = {"metadata.json": ""}
    graph = torch.export.load(path, extra_files=files).module()
    for count in (1, 3, 7):
        with torch.no_grad():
            theirs = graph(images(count))
        assert largest_difference(logits_of(network.model, images(count)), theirs) < 1e-5
    assert json.loads(files["metadata.json"]) == network.metadata
    assert str(Path(__file__).parents[3]).encode() not in path.read_bytes()


def test_what_disagrees_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = exported(small_recipe("resnet8"))

    def write(network: ExportedNetwork, path: Path, difference: float) -> Agreement:
        path.write_text("half")
        return Agreement("nothing", difference, 1e-4)

    for difference in (2e-4, float("nan")):
        monkeypatch.setitem(write_export.WRITERS, "pth", partial(write, difference=difference))
        with pytest.raises(InputError, match="nothing"):
            write_export.write_export(network, tmp_path / "w.pth", "pth", tmp_path / "w.json")
        assert names_in(tmp_path) == []
    monkeypatch.setitem(write_export.WRITERS, "pth", partial(write, difference=9e-5))
    write_export.write_export(network, tmp_path / "w.pth", "pth", tmp_path / "w.json")
    assert json.loads((tmp_path / "w.json").read_text()) == network.metadata


def test_a_graph_is_compared_at_every_number_of_images() -> None:
    """One that is right for a single image only is found out."""
    network = exported(small_recipe("resnet8"))

    def fixed(given: torch.Tensor) -> torch.Tensor:
        return logits_of(network.model, given) + (0.01 if len(given) == 5 else 0)

    assert network.compare_graph(lambda given: logits_of(network.model, given)) == 0
    assert network.compare_graph(fixed) > 1e-4


def test_a_network_that_cannot_be_captured(tmp_path: Path) -> None:
    class Loops(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.mean((2, 3)) if x.sum() > 0 else x.amax((2, 3))

    network = ExportedNetwork(Loops(), small_recipe("resnet8"), {})
    with pytest.raises(InputError, match="safetensors"):
        torch_export_file.write_torch_export(network, tmp_path / "n.pt2")
    assert names_in(tmp_path) == []
