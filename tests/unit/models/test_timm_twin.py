"""Which network of timm has the weights of a recipe's."""

from __future__ import annotations

import pytest
import torch

from resnext_train.config import ModelSection
from resnext_train.models.build_model import build_on_meta
from resnext_train.models.timm_twin import timm_twin

timm = pytest.importorskip("timm")


@pytest.mark.parametrize(
    ("arch", "architecture"),
    [
        ("resnet34", "resnet34"),
        ("resnet50", "resnet50"),
        ("resnext50_32x4d", "resnext50_32x4d"),
        ("resnext101_64x4d", "resnext101_64x4d"),
        ("wide_resnet50_2", "wide_resnet50_2"),
        ("resnext50_2x40d", "resnet50"),  # which timm has under no name of its own
        ("torchvision/densenet121", "densenet121"),
        ("timm/resnet26d.bt_in1k", "resnet26d"),
    ],
)
def test_names_and_shapes_are_timms(arch: str, architecture: str) -> None:
    section = ModelSection(arch=arch)
    twin = timm_twin(section, 7)
    assert twin.architecture == architecture
    assert bool(twin.arguments) == (arch == "resnext50_2x40d")
    with torch.device("meta"):
        theirs = timm.create_model(twin.architecture, num_classes=7, **twin.arguments).state_dict()
    ours = build_on_meta(section, 7).state_dict()
    assert {k: v.shape for k, v in theirs.items()} == {k: v.shape for k, v in ours.items()}


def test_hyper_parameters_win_over_the_name() -> None:
    twin = timm_twin(ModelSection(arch="resnet50", cardinality=32, base_width=4), 7)
    assert (twin.architecture, twin.arguments["cardinality"], twin.arguments["base_width"]) == ("resnet50", 32, 4)
