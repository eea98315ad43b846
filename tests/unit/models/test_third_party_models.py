"""Networks of torchvision and timm: found by name, trained with their auxiliary classifiers, refused in a sentence."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor
from torch.nn import functional as F

from helpers.ranks import run_ranks, single
from helpers.steps import train_step
from resnext_train.compute.loss import TrainingLoss
from resnext_train.config import ModelSection, SgdSection
from resnext_train.data.image_batch import ImageBatch
from resnext_train.data.rng import micro_batch_seed
from resnext_train.data.sampler import shard_for_rank
from resnext_train.data.transforms.color_transform import ColorTransform
from resnext_train.distributed.dist_context import DistContext
from resnext_train.errors import InputError
from resnext_train.models.architecture import check_model
from resnext_train.models.build_model import auxiliary_weight, build_model
from resnext_train.models.complexity import check_training, measure
from resnext_train.training.optimizer import build_optimizer

NORMALISE = ColorTransform(0.0, 0.0, 0.0, 0.0, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))


def micro_batches(count: int, size: int, images: int = 3) -> list[ImageBatch]:
    g = torch.Generator().manual_seed(9)
    pixels = torch.randint(0, 256, (count, images, 3, size, size), generator=g, dtype=torch.uint8)
    labels = torch.randint(0, 6, (count, images), generator=g)
    return [ImageBatch(p, n, None) for p, n in zip(pixels, labels, strict=True)]


def take_step(
    context: DistContext, arch: str, size: int, clip_norm: float | None = None, dtype: torch.dtype = torch.float32
) -> dict[str, Any]:
    """One step of two micro-batches: the gradient, the state after it and the loss."""
    section = ModelSection(arch=arch)
    model = build_model(section, 6, seed=1).to(dtype).to(memory_format=torch.channels_last)
    optimizer = build_optimizer(SgdSection(momentum=0.0, nesterov=False, weight_decay=0.0), model)
    loss = TrainingLoss(0.1, auxiliary_weight(section))
    step = train_step(
        model, optimizer, context, micro_batches=2, colors=NORMALISE, loss=loss, clip_norm=clip_norm, seed=5
    )
    both = micro_batches(2, size)
    step(iter([both[i] for i in shard_for_rank(2, context.world_size, context.rank)]), 0, 6, lr=0.1)
    step.read_metrics()
    gradients = {k: p.grad for k, p in model.named_parameters()}
    loss_sum = torch.tensor(step.meter.epoch.loss, dtype=torch.float64)
    return {"gradients": gradients, "state": model.state_dict(), "loss": loss_sum}


@pytest.mark.slow
def test_auxiliary_classifiers_are_trained_with_their_weight() -> None:
    """GoogLeNet: main loss + 0.3 of each of two, smoothed alike, in plain torch with the same dropout."""
    ours = single(take_step, "torchvision/googlenet", 64, None, torch.float64)
    model = build_model(ModelSection(arch="torchvision/googlenet"), 6, seed=1).double()
    total = torch.zeros((), dtype=torch.float64)
    for number, (images, labels, *_) in enumerate(micro_batches(2, 64)):
        torch.manual_seed(micro_batch_seed(5, 0, number))
        outputs = model((images.double() / 255 - 0.5) / 0.25)
        losses = [F.cross_entropy(o, labels, reduction="sum", label_smoothing=0.1) for o in outputs]
        loss = losses[0] + 0.3 * losses[1] + 0.3 * losses[2]
        (loss / 6).backward()
        total += loss.detach()
    assert ours["loss"].item() == pytest.approx(total.item(), rel=1e-9)
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None
        scale = float(parameter.grad.abs().max())
        torch.testing.assert_close(ours["gradients"][name], parameter.grad, rtol=1e-6, atol=1e-6 * scale, msg=name)
    assert float(ours["gradients"]["aux1.fc2.weight"].abs().max()) > 0


def test_the_weights_of_auxiliary_losses() -> None:
    """0.3 in the GoogLeNet paper, section 5; 0.4 for Inception-v3; any other by the recipe."""
    for arch, expected in (("torchvision/googlenet", 0.3), ("torchvision/inception_v3", 0.4), ("resnet50", 0.0)):
        assert auxiliary_weight(ModelSection(arch=arch)) == expected
    assert auxiliary_weight(ModelSection(arch="torchvision/googlenet", auxiliary_weight=0.1)) == 0.1


@pytest.mark.slow
def test_networks_without_bn_and_with_dropout_are_the_same_on_two_processes(tmp_path: Path) -> None:
    arguments = ("torchvision/squeezenet1_1", 64)
    one = single(take_step, *arguments)
    for two in run_ranks(take_step, 2, tmp_path, *arguments):
        assert all(torch.equal(one["state"][k], two["state"][k]) for k in one["state"])


def norm(tensors: dict[str, Tensor]) -> float:
    return float(torch.stack([t.double().square().sum() for t in tensors.values()]).sum().sqrt())


@pytest.mark.slow
def test_a_step_scales_its_gradient_down_to_the_clip_norm(tmp_path: Path) -> None:
    """Over all parameters at once and after the sum over processes; plain SGD moves by lr times that."""
    free = single(take_step, "resnext14_2x4d", 32)
    length = norm(free["gradients"])
    clipped = single(take_step, "resnext14_2x4d", 32, length / 4)
    assert norm(clipped["gradients"]) == pytest.approx(length / 4, rel=1e-4)
    start = build_model(ModelSection(arch="resnext14_2x4d"), 6, seed=1).state_dict()
    for name, gradient in free["gradients"].items():
        torch.testing.assert_close(clipped["state"][name], start[name] - 0.1 * gradient / 4, rtol=1e-4, atol=1e-6)
    loose = single(take_step, "resnext14_2x4d", 32, length * 2)
    assert all(torch.equal(loose["state"][k], free["state"][k]) for k in free["state"])
    for two in run_ranks(take_step, 2, tmp_path, "resnext14_2x4d", 32, length / 4):
        assert all(torch.equal(clipped["state"][k], two["state"][k]) for k in two["state"])


@pytest.mark.parametrize(
    ("section", "told"),
    [
        ({"arch": "torchvision/vgg16bn"}, ("torchvision ", "'vgg16bn'", "vgg16_bn")),
        ({"arch": "torchvision/fasterrcnn_resnet50_fpn"}, ("torchvision ", "'fasterrcnn_resnet50_fpn'")),
        ({"arch": "keras/vgg16"}, ("model.arch: ", "'keras'", "torchvision/NAME")),
        ({"arch": "torchvision/resnet50", "cardinality": 8}, ("model.cardinality: torchvision/resnet50 ",)),
        ({"arch": "resnet18", "form": "a"}, ("model.arch: resnet18 ", "Figure 4", "model.width")),
        ({"arch": "preact_resnet50", "form": "b"}, ("model.form: b ", "preact_resnet50")),
        ({"arch": "resnet50", "width": 1e9}, ("model.width: 1e+09 ", "resnet50")),
        ({"arch": "resnet99999998"}, ("model.arch: resnet99999998 ", " 2000 ", " 100000 ")),
        ({"arch": "resnet50", "auxiliary_weight": 0.3}, ("model.auxiliary_weight: resnet50 ",)),
        ({"arch": "plain34", "shortcut": "A"}, ("model.shortcut: plain34 ",)),
        ({"arch": "resnet50", "width": 0.01}, ("model.width: 0.01 ", "resnet50")),
    ],
)
def test_what_is_no_network(section: dict[str, Any], told: tuple[str, ...]) -> None:
    def check() -> None:
        check_model(ModelSection(**section))
        build_model(ModelSection(**section), 10)

    with pytest.raises(InputError) as error:
        check()
    assert all(fact in str(error.value) for fact in told), error.value


def test_a_missing_timm_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(InputError, match=r"pip install 'resnext-train\[timm\]'"):
        build_model(ModelSection(arch="timm/inception_v4"), 10)


def test_timm_networks() -> None:
    timm = pytest.importorskip("timm")
    with pytest.raises(InputError, match=r"timm .*'inception_v5'.* inception_v[34]"):
        build_model(ModelSection(arch="timm/inception_v5"), 10)
    ours = build_model(ModelSection(arch="timm/resnet18"), 10, seed=3)
    assert ours.state_dict().keys() == timm.create_model("resnet18", num_classes=10).state_dict().keys()
    assert all(
        torch.equal(v, ours.state_dict()[k])
        for k, v in build_model(ModelSection(arch="timm/resnet18"), 10, seed=3).state_dict().items()
    )


def test_images_that_a_network_cannot_take() -> None:
    section = ModelSection(arch="torchvision/inception_v3")
    check_training(section, 10, 299)
    with pytest.raises(InputError, match=r"torchvision/inception_v3 .* 128 × 128 "):
        check_training(section, 10, 128)  # its auxiliary classifier, which evaluation does not use
    with pytest.raises(InputError, match=r"torchvision/vit_b_16 .* 64 × 64 "):
        measure(ModelSection(arch="torchvision/vit_b_16"), 10, 64)


@pytest.mark.parametrize(
    "name",
    [
        *("alexnet", "convnext_tiny", "densenet121", "efficientnet_b0", "efficientnet_v2_s", "googlenet"),
        *("inception_v3", "maxvit_t", "mnasnet0_5", "mobilenet_v2", "mobilenet_v3_small", "regnet_x_400mf"),
        *("regnet_y_400mf", "resnet18", "resnext50_32x4d", "shufflenet_v2_x0_5", "squeezenet1_0", "swin_t"),
        *("swin_v2_t", "vgg11", "vgg11_bn", "vit_b_32", "wide_resnet50_2"),
    ],
)
def test_every_family_of_torchvision_can_be_measured(name: str) -> None:
    """Against the parameters that torchvision publishes with the weights."""
    published = next(iter(torchvision.models.get_model_weights(name))).meta
    size = measure(
        ModelSection(arch=f"torchvision/{name}"),
        1000,
        299 if "inception" in name else 256 if "swin_v2" in name else 224,
    )
    without = size.auxiliary_parameters if name == "googlenet" else 0
    assert size.parameters - without == published["num_params"]
    assert (size.auxiliary_parameters > 0) == (name in ("googlenet", "inception_v3"))


def test_auxiliary_classifiers_are_counted_apart() -> None:
    """torchvision's published GoogLeNet has lost its auxiliary classifiers: 6,624,904 parameters."""
    size = measure(ModelSection(arch="torchvision/googlenet"), 1000, 224)
    assert size.parameters - size.auxiliary_parameters == 6_624_904
