"""Mixup and CutMix against torchvision's, and their draws against the Beta distribution."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torchvision.transforms import v2

from resnext_train.data.transforms.mix import Mix, Mixing, cut_box, symmetric_beta


class _Fixed:
    """Stands in for a distribution."""

    def __init__(self, value: float) -> None:
        self.value = value

    def sample(self, _: Any) -> torch.Tensor:
        return torch.tensor(self.value, dtype=torch.float64)


def torchvisions(transform: Any, weight: float, images: torch.Tensor, labels: torch.Tensor) -> Any:
    transform._dist = _Fixed(weight)
    return transform(images, labels)


def dense(labels: torch.Tensor, mix: Mix) -> torch.Tensor:
    one_hot = torch.nn.functional.one_hot
    return mix.weight * one_hot(labels, 5) + (1 - mix.weight) * one_hot(mix.partners(labels), 5)


@pytest.mark.parametrize("size", [1, 2, 5])
@pytest.mark.parametrize("weight", [0.0, 0.2, 0.9, 1.0])
def test_mixup_is_torchvisions(size: int, weight: float) -> None:
    images = torch.randn(size, 3, 8, 6, dtype=torch.float64).to(memory_format=torch.channels_last)
    labels, mix = torch.arange(size) % 5, Mix(weight)
    expected, expected_labels = torchvisions(v2.MixUp(num_classes=5), weight, images, labels)
    mixed = mix.images(images.clone(memory_format=torch.preserve_format))
    torch.testing.assert_close(mixed, expected, rtol=0, atol=1e-15)
    torch.testing.assert_close(dense(labels, mix), expected_labels)
    assert mixed.stride() == images.stride()
    # Half precision is rounded once.
    half = images.bfloat16()
    wide = weight * half.double() + (1 - weight) * half.double().roll(1, 0)
    assert (mix.images(half).double() - wide).abs().max() <= 2**-8 * wide.abs().max()


@pytest.mark.parametrize("weight", [0.0, 0.2, 0.5, 0.99, 1.0])
@pytest.mark.parametrize(("row", "column"), [(0, 0), (3, 10), (15, 5), (8, 11)])
def test_cutmix_is_torchvisions(weight: float, row: int, column: int, monkeypatch: pytest.MonkeyPatch) -> None:
    images, labels = torch.randn(4, 3, 16, 12), torch.tensor([0, 1, 2, 4])
    at = iter([column, row])  # torchvision draws the column first
    with monkeypatch.context() as patch:
        patch.setattr(torch, "randint", lambda *_, **__: torch.tensor([next(at)]))
        expected, expected_labels = torchvisions(v2.CutMix(num_classes=5), weight, images, labels)
    box = cut_box(weight, row, column, 16, 12)
    area = (box[0].stop - box[0].start) * (box[1].stop - box[1].start)
    mix = Mix(1 - area / (16 * 12), box)
    assert torch.equal(mix.images(images.clone()), expected)
    torch.testing.assert_close(dense(labels, mix), expected_labels)


def beta_cdf(alpha: float) -> tuple[np.ndarray, np.ndarray]:
    """The distribution function of Beta(alpha, alpha) at a grid of x, by quadrature over t with x = sin² t."""
    edges = np.linspace(0, math.pi / 2, 200_001)
    middles = (edges[1:] + edges[:-1]) / 2
    density = (np.sin(middles) * np.cos(middles)) ** (2 * alpha - 1)
    mass = np.concatenate(([0.0], np.cumsum(density)))
    return np.sin(edges) ** 2, mass / mass[-1]


@pytest.mark.parametrize("alpha", [0.3, 1.0, 3.0])
def test_ratios_have_the_beta_distribution(alpha: float) -> None:
    """On a lattice of both uniform numbers, on which all errors are those of the lattice."""
    side = 100
    lattice = (np.arange(side) + 0.5) / side
    values = np.sort([symmetric_beta(alpha, radius, turn) for radius in lattice for turn in lattice])
    assert values.mean() == pytest.approx(0.5, abs=1e-9)
    assert values.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.01)
    inner = (values > 1e-6) & (values < 1 - 1e-6)
    theirs = np.interp(values, *beta_cdf(alpha))
    assert np.abs(theirs - (np.arange(side**2) + 0.5) / side**2)[inner].max() < 0.012


def test_extreme_numbers_give_ratios() -> None:
    for alpha in (1e-3, 0.1, 1.0, 1e4):
        for radius in (0.0, 1 - 2**-53):
            for turn in (0.0, 0.25, 0.5, 1 - 2**-53):
                assert 0 <= symmetric_beta(alpha, radius, turn) <= 1


def test_draws_are_those_of_the_step_and_the_micro_batch() -> None:
    mixing = Mixing(0.2, 1.0, 0.25, seed=7)
    drawn = [mixing.draw(step, micro_batch, 24, 16) for step in range(40) for micro_batch in range(25)]
    assert drawn[:25] == [mixing.draw(0, micro_batch, 24, 16) for micro_batch in range(25)]
    assert len(set(map(repr, drawn))) > 950
    boxes = np.zeros((len(drawn), 24, 16))
    for image, mix in zip(boxes, drawn, strict=True):
        if mix.box is not None:
            image[mix.box] = 1
            assert mix.weight == pytest.approx(1 - image.mean())
    assert 200 < sum(mix.box is not None for mix in drawn) < 300
    assert boxes.sum(0).min() > 10, "boxes lie all over the image"
    assert all(mix.box is None for mix in [Mixing(0.2, 0, 1.0).draw(s, 0, 24, 16) for s in range(20)])
    assert all(mix.box is not None for mix in [Mixing(0, 1.0, 0.0).draw(s, 0, 24, 16) for s in range(20)])
