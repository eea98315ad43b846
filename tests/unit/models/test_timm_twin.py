"""Which network of timm has the weights of a recipe's."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from resnext_train.config import ModelSection
from resnext_train.errors import InputError
from resnext_train.models.build_model import build_on_meta
from resnext_train.models.timm_twin import TimmTwin, timm_twin

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


@pytest.mark.parametrize(
    ("options", "refused"),
    [
        ({"blur_pool": True}, "model.blur_pool, as resnet18 has"),  # resnetblur18 has it elsewhere
        ({"bn_epsilon": 1e-3}, "model.bn_epsilon 0.001, as resnet18 has"),
        ({"stochastic_depth": 0.1, "zero_gamma": True, "conv_init": "fan_in", "bn_momentum": 0.01}, None),
    ],
)
def test_what_changes_the_function_is_refused_and_what_only_trains_is_not(
    options: dict[str, Any], refused: str | None
) -> None:
    section = ModelSection(arch="resnet18", **options)
    if refused is None:
        assert timm_twin(section, 7) == TimmTwin("resnet18")
        return
    with pytest.raises(InputError, match=refused):
        timm_twin(section, 7)


def test_hyper_parameters_win_over_the_name() -> None:
    twin = timm_twin(ModelSection(arch="resnet50", cardinality=32, base_width=4), 7)
    assert (twin.architecture, twin.arguments["cardinality"], twin.arguments["base_width"]) == ("resnet50", 32, 4)
