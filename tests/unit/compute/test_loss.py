"""The training losses against timm's, with label smoothing and mixed labels."""

from __future__ import annotations

import math
from typing import Literal

import pytest
import torch
from torch.nn import functional as F

from resnext_train.compute.loss import Targets, TrainingLoss


@pytest.mark.parametrize(("kind", "threshold"), [("cross_entropy", None), ("bce", None), ("bce", 0.2), ("bce", 0.5)])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weight", [1.0, 0.3])
def test_loss_and_gradient_are_timms(
    kind: Literal["cross_entropy", "bce"], threshold: float | None, smoothing: float, weight: float
) -> None:
    """timm mixes dense targets, with the images in reverse order; in fp32; its losses are means over images."""
    timm_loss = pytest.importorskip("timm.loss")
    mixup_target = pytest.importorskip("timm.data.mixup").mixup_target
    generator = torch.Generator().manual_seed(0)
    logits = (20 * torch.randn(6, 7, generator=generator)).double().requires_grad_()
    labels = torch.tensor([0, 6, 2, 2, 3, 5])  # of which the middle ones are mixed with their like
    dense = mixup_target(labels, 7, weight, smoothing).double()
    binary = timm_loss.BinaryCrossEntropy(smoothing, target_threshold=threshold)
    theirs = timm_loss.SoftTargetCrossEntropy() if kind == "cross_entropy" else binary
    expected = 6 * theirs(logits, dense)
    (gradient,) = torch.autograd.grad(expected, logits)
    targets = Targets(labels) if weight == 1 else Targets(labels, labels.flip(0), weight)
    # An auxiliary classifier with the same logits, and half the weight: one loss and a half.
    loss = TrainingLoss(smoothing, 0.5, kind, threshold)((logits, logits), targets)
    (own,) = torch.autograd.grad(loss, logits)
    torch.testing.assert_close(loss, 1.5 * expected, rtol=1e-6, atol=0)
    torch.testing.assert_close(own, 1.5 * gradient, rtol=1e-6, atol=1e-7)


def test_auxiliary_classifiers_count_by_their_weight_in_bce() -> None:
    """Of logits of 0, ln 3 and -ln 3 the probabilities are 1/2, 3/4 and 1/4."""
    three = math.log(3)
    outputs = tuple(torch.tensor([pair]) for pair in ([0.0, 0.0], [three, -three], [-three, three]))
    loss = TrainingLoss(auxiliary_weight=0.3, kind="bce")(outputs, Targets(torch.tensor([0])))
    assert loss.item() == pytest.approx(math.log(2) + 0.3 * (math.log(4 / 3) + math.log(4)))


def test_an_unmixed_loss_is_pytorchs_to_the_bit() -> None:
    logits, labels = torch.randn(6, 5), torch.tensor([0, 1, 2, 3, 4, 0])
    assert torch.equal(
        TrainingLoss(0.1)(logits, Targets(labels)),
        F.cross_entropy(logits, labels, reduction="sum", label_smoothing=0.1),
    )
    assert TrainingLoss(kind="bce")(logits.bfloat16(), Targets(labels)).dtype == torch.float32


@pytest.mark.parametrize(("weight", "first"), [(0.7, True), (0.5, True), (0.3, False)])
def test_a_mixed_image_counts_for_the_label_with_the_larger_part(weight: float, first: bool) -> None:
    labels, others = torch.tensor([0, 1]), torch.tensor([1, 0])
    assert torch.equal(Targets(labels, others, weight).heavier, labels if first else others)
