"""Equality with torchvision's networks, which are independent of ours: names, shapes, outputs and gradients."""

from __future__ import annotations

import pytest
import torch
import torchvision
from torch import nn

from resnext_train.config import ModelSection
from resnext_train.models.build_model import build_model

TOLERANCE = {torch.float64: 1e-10, torch.float32: 2e-4}


def pair(name: str, dtype: torch.dtype) -> tuple[nn.Module, nn.Module]:
    """Ours and torchvision's network with the same random weights."""
    generator = torch.Generator().manual_seed(1)
    with torch.device("meta"):
        ours = build_model(ModelSection(arch=name), 1000)
        theirs = torchvision.models.get_model(name, weights=None)
    weights = {}
    for key, tensor in theirs.state_dict().items():
        if key.endswith("num_batches_tracked"):
            weights[key] = torch.tensor(3)
        elif tensor.ndim > 1:
            weights[key] = torch.randn(tensor.shape, generator=generator).to(dtype) / tensor[0].numel() ** 0.5
        else:
            weights[key] = torch.rand(tensor.shape, generator=generator).to(dtype) + 0.5
    ours.load_state_dict(weights, assign=True)
    theirs.load_state_dict({k: v.clone() for k, v in weights.items()}, assign=True)
    return ours, theirs


@pytest.mark.parametrize("name", ["resnet101", "resnet152", "resnext101_32x8d", "resnext101_64x4d"])
def test_deeper_ones_have_the_same_names_and_shapes(name: str) -> None:
    """They repeat the blocks whose outputs and gradients are compared below; their multiply-adds are further down."""
    with torch.device("meta"):
        ours = build_model(ModelSection(arch=name), 1000).state_dict()
        theirs = torchvision.models.get_model(name, weights=None).state_dict()
    assert [(k, t.shape) for k, t in ours.items()] == [(k, t.shape) for k, t in theirs.items()]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("resnet18", torch.float64),
        # fp64 convolutions are slow on a CPU; these are fast
        ("resnet34", torch.float32),
        ("resnet50", torch.float32),
        ("resnext50_32x4d", torch.float32),
        ("wide_resnet50_2", torch.float32),
    ],
)
def test_same_names_outputs_statistics_and_gradients(name: str, dtype: torch.dtype) -> None:
    ours, theirs = pair(name, dtype)
    tolerance = TOLERANCE[dtype]
    assert list(ours.state_dict()) == list(theirs.state_dict())
    images = torch.randn(2, 3, 40, 40, dtype=dtype, generator=torch.Generator().manual_seed(2))
    outputs = {}
    for model in (ours, theirs):
        model.eval()
        with torch.no_grad():
            evaluated = model(images)
        model.train()
        trained = model(images)
        trained.square().mean().backward()
        outputs[model] = (evaluated, trained.detach())
    for mine, other in zip(outputs[ours], outputs[theirs], strict=True):
        torch.testing.assert_close(mine, other, rtol=tolerance, atol=tolerance)
    for (key, mine), other in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        assert other.grad is not None
        scale = float(other.grad.abs().max())
        torch.testing.assert_close(mine.grad, other.grad, rtol=tolerance, atol=tolerance * scale, msg=key)
    for (key, mine), other in zip(ours.named_buffers(), theirs.buffers(), strict=True):
        torch.testing.assert_close(mine, other, rtol=tolerance, atol=tolerance, msg=key)


@pytest.mark.parametrize(
    ("name", "weights"),
    [
        ("resnet18", "ResNet18_Weights"),
        ("resnet34", "ResNet34_Weights"),
        ("resnet50", "ResNet50_Weights"),
        ("resnet101", "ResNet101_Weights"),
        ("resnet152", "ResNet152_Weights"),
        ("wide_resnet50_2", "Wide_ResNet50_2_Weights"),
        ("resnext50_32x4d", "ResNeXt50_32X4D_Weights"),
        ("resnext101_32x8d", "ResNeXt101_32X8D_Weights"),
        ("resnext101_64x4d", "ResNeXt101_64X4D_Weights"),
    ],
)
def test_sizes_that_torchvision_publishes(name: str, weights: str) -> None:
    from resnext_train.models.complexity import measure

    published = torchvision.models.get_weight(f"{weights}.IMAGENET1K_V1").meta
    size = measure(ModelSection(arch=name), 1000, 224)
    assert size.parameters == published["num_params"]
    assert size.multiply_adds / 1e9 == pytest.approx(published["_ops"], abs=0.002)
    assert sum(p.parameters for p in size.parts) == size.parameters
    assert sum(p.multiply_adds for p in size.parts) == size.multiply_adds
