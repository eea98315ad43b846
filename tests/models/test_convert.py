from __future__ import annotations

import pytest
import torch
import torchvision

from resnext_train.config import ModelSection
from resnext_train.errors import InputError
from resnext_train.models.build import build_model
from resnext_train.models.convert import find_state_dict, load_weights


@pytest.mark.parametrize("wrapper", [None, "state_dict", "model"])
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod."])
def test_foreign_weights_are_found_and_loaded(wrapper: str | None, prefix: str) -> None:
    weights = torchvision.models.resnet18(num_classes=7).state_dict()
    content: object = {prefix + k: v for k, v in weights.items()}
    content = {wrapper: content, "epoch": 3} if wrapper else content
    model = build_model(ModelSection(arch="resnet18"), 7)
    load_weights(model, find_state_dict(content, "file"), "file")
    assert all(torch.equal(v, weights[k]) for k, v in model.state_dict().items())


@pytest.mark.parametrize("content", [None, 3, {}, {"epoch": 3}, [torch.zeros(1)], {1: torch.zeros(1)}])
def test_what_is_no_state_dict(content: object) -> None:
    with pytest.raises(InputError, match="file is not a checkpoint"):
        find_state_dict(content, "file")


def test_a_mismatch_names_the_first_names_and_shapes() -> None:
    weights = torchvision.models.resnet18(num_classes=7).state_dict()
    del weights["bn1.bias"]
    weights["head"] = torch.zeros(1)
    with pytest.raises(InputError) as error:
        load_weights(build_model(ModelSection(arch="resnet18"), 9), weights, "file")
    assert "lacks bn1.bias; has unknown head; has fc.weight (7, 512) instead of (9, 512)" in str(error.value)
