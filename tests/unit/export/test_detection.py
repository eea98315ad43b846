"""Detectors of torchvision start from exported weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.resnet import Bottleneck, ResNet
from torchvision.ops.misc import FrozenBatchNorm2d

from helpers.exports import exported, small_recipe
from resnext_train.checkpoint.checkpoint_file import load_file
from resnext_train.export.write_export import write_export


@pytest.mark.slow
def test_a_training_step_of_faster_rcnn(tmp_path: Path) -> None:
    network, path = exported(small_recipe("resnext14_2x4d")), tmp_path / "w.safetensors"
    write_export(network, path, "safetensors")
    weights = {k: v for k, v in load_file(path).items() if not k.startswith("fc.") and "num_batches" not in k}
    resnet = ResNet(Bottleneck, [1, 1, 1, 1], groups=2, width_per_group=4, norm_layer=FrozenBatchNorm2d)
    stages = {f"layer{i}": str(i) for i in (1, 2, 3, 4)}
    backbone = BackboneWithFPN(resnet, stages, [256, 512, 1024, 2048], 64)
    backbone.body.load_state_dict(weights)
    ours = network.model.state_dict()
    body = backbone.body.state_dict()
    assert set(body) == set(weights)
    assert all(torch.equal(tensor, ours[name]) for name, tensor in body.items())
    detector = FasterRCNN(backbone, num_classes=3, min_size=96, max_size=96).train()
    g = torch.Generator().manual_seed(0)
    images = [torch.rand(3, 96, 96, generator=g), torch.rand(3, 80, 96, generator=g)]
    boxes = torch.tensor([[8.0, 8.0, 60.0, 60.0]])
    targets = [{"boxes": boxes, "labels": torch.tensor([1])}, {"boxes": boxes + 12, "labels": torch.tensor([2])}]
    optimizer = torch.optim.SGD(detector.parameters(), lr=1e-3)
    loss = sum(detector(images, targets).values())
    loss.backward()
    optimizer.step()
    assert torch.isfinite(loss)
    assert not torch.equal(backbone.body["layer4"][0].conv2.weight, ours["layer4.0.conv2.weight"])
