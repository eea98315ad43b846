"""timm builds and loads an exported folder, and its logits and preprocessing are ours."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from packaging.version import Version

from helpers.exports import CLASSES, TITLES, exported, logits_of, names_in, small_recipe
from resnext_train.config import load_recipe, recipe_from_dict
from resnext_train.errors import InputError
from resnext_train.export.exported_network import ExportedNetwork
from resnext_train.export.hf_folder import crop_share
from resnext_train.export.model_card import model_card
from resnext_train.export.write_export import write_export
from resnext_train.models.build_model import build_model
from resnext_train.models.timm_twin import TimmTwin

timm = pytest.importorskip("timm")

IMAGES = torch.randn(3, 3, 48, 48, dtype=torch.float64, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize(
    ("model", "architecture", "arguments"),
    [
        pytest.param({"arch": "resnet18"}, "resnet18", {}, marks=pytest.mark.slow),
        (
            {"arch": "resnext14_2x4d", "form": "a"},
            "resnet50",
            {"layers": [1, 1, 1, 1], "cardinality": 2, "base_width": 4},
        ),
        ({"arch": "resnet10", "blocks": [1, 1, 1, 1]}, "resnet18", {"layers": [1, 1, 1, 1]}),
        ({"arch": "timm/mobilenetv3_small_050"}, "mobilenetv3_small_050", {}),
        pytest.param({"arch": "torchvision/resnet18"}, "resnet18", {}, marks=pytest.mark.slow),
    ],
)
def test_timm_computes_our_logits(
    model: dict[str, Any], architecture: str, arguments: dict[str, Any], tmp_path: Path
) -> None:
    network, folder = exported(small_recipe(**model)), tmp_path / "folder"
    assert write_export(network, folder, "hf").holds
    assert names_in(folder) == ["README.md", "config.json", "model.safetensors", "recipe.yaml"]
    config = json.loads((folder / "config.json").read_text())
    assert (config["architecture"], config.get("model_args", {})) == (architecture, arguments)
    expected = logits_of(network.model.double(), IMAGES)
    weights = folder / "model.safetensors"
    loaded = timm.create_model(architecture, num_classes=5, checkpoint_path=str(weights), **arguments)
    torch.testing.assert_close(logits_of(loaded.double(), IMAGES), expected, rtol=1e-10, atol=1e-10)
    if Version(timm.__version__) >= Version("1.0.16"):  # which brought local-dir:
        local = timm.create_model(f"local-dir:{folder}", pretrained=True)
        torch.testing.assert_close(logits_of(local.double(), IMAGES), expected, rtol=1e-10, atol=1e-10)
        assert tuple(local.pretrained_cfg["label_names"]) == CLASSES
        assert local.pretrained_cfg["label_descriptions"] == dict(zip(CLASSES, TITLES, strict=True))
        resize, crop, _, normalise = timm.data.create_transform(
            **timm.data.resolve_model_data_config(local), is_training=False
        ).transforms
        assert (resize.size, tuple(crop.size), resize.interpolation.value) == (56, (48, 48), "bilinear")
        assert normalise.mean.tolist() == pytest.approx([0.5, 0.4, 0.3])


def test_timm_resizes_to_the_same_short_side() -> None:
    for crop in range(32, 513, 3):
        for resize in range(crop, crop + 200):
            assert math.floor(crop / crop_share(resize, crop)) == resize  # timm/data/transforms_factory.py


@pytest.mark.parametrize(
    ("model", "told"),
    [
        ({"arch": "resnet20"}, "three stages"),
        ({"arch": "plain18"}, "without shortcuts"),
        ({"arch": "preact_resnet18"}, "pre-activation"),
        ({"arch": "resnet18", "shortcut": "A"}, "shortcut A"),
        ({"arch": "resnet18", "shortcut": "C"}, "shortcut C"),
        ({"arch": "resnet18", "stem": "cifar"}, "CIFAR stem"),
        ({"arch": "resnet18", "width": 0.5}, "width 0.5"),
        ({"arch": "torchvision/shufflenet_v2_x0_5"}, "shufflenet_v2_x0_5"),
    ],
)
def test_networks_that_timm_cannot_build(model: dict[str, Any], told: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=rf"{told}.*safetensors"):
        write_export(exported(small_recipe(**model)), tmp_path / "folder", "hf")
    assert names_in(tmp_path) == []


def test_model_card(tmp_path: Path) -> None:
    network = exported(small_recipe("resnet18"))
    write_export(network, tmp_path / "folder", "hf")
    _, front, card = (tmp_path / "folder" / "README.md").read_text().split("---\n", 2)
    told = yaml.safe_load(front)
    assert told == {
        "tags": ["image-classification", "timm"],
        "library_name": "timm",
        "pipeline_tag": "image-classification",
    }
    assert "75.000 %" in card
    assert "(30 of 40 images correct)" in card
    assert network.metadata["recipe_sha256"] in card
    assert "--config recipe.yaml" in card
    read = yaml.safe_load((tmp_path / "folder" / "recipe.yaml").read_text())
    assert recipe_from_dict(read, "written") == network.recipe


def test_a_shipped_recipe_has_its_published_error_and_foreign_weights_have_none() -> None:
    recipe = load_recipe("resnet18", ["data.root=/somewhere"])
    metadata = exported(small_recipe("resnet8")).metadata
    model = build_model(recipe.model, 1000).eval()
    card = model_card(ExportedNetwork(model, recipe, metadata), TimmTwin("resnet18"))
    assert "top-1 error 30.43 %" in card  # fb.resnet.torch's README
    assert "resnext train --config resnet18" in card
    assert "7 deviations from fb.resnet.torch:\n\n- crop after ten attempts: here: " in card
    assert "- resize antialiased: here: yes; there: no (torch/image, generic/image.c, scaleCubic)" in card
    assert "11.69 M parameters, 1.81 G multiply-adds" in card  # torchvision's documentation of resnet18
    assert "/somewhere" not in card
    card = model_card(ExportedNetwork(model, recipe, {**metadata, "classes": None}), TimmTwin("resnet18"))
    assert "30.43" not in card
    assert "resnext train" not in card
