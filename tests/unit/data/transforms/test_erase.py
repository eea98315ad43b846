"""Random erasing is that of timm and torchvision, on the same numbers and by arithmetic."""

from __future__ import annotations

import math
import random
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from timm.data.random_erasing import RandomErasing as TimmErasing
from torchvision.transforms import RandomErasing as TorchvisionErasing

from resnext_train.config import EraseSection
from resnext_train.data.build_loaders import build_erasing
from resnext_train.data.rng import Use, uniforms
from resnext_train.data.transforms.erase import _OF_BOX, _OF_IMAGE, RandomErasing

IMAGES = np.arange(400)


def in_order_of_timm(draws: NDArray[np.float64], erasing: RandomErasing, size: int) -> list[float]:
    """The draws of one image in the order in which timm asks for them: those of attempts, then of a place if it fits.

    Its number of boxes is drawn only where they may be several.
    """
    count = 1 + int(draws[1] * erasing.count)
    order = [draws[0], *([draws[1]] if erasing.count > 1 else [])]
    low, high = (math.log(limit) for limit in erasing.aspect)
    for of_box in draws[_OF_IMAGE:].reshape(erasing.count, _OF_BOX)[:count]:
        for a, r in zip(of_box[:10], of_box[10:20], strict=True):
            order += [a, r]
            area = (erasing.area[0] + a * (erasing.area[1] - erasing.area[0])) * size**2 / count
            ratio = math.exp(low + r * (high - low))
            if round(math.sqrt(area * ratio)) < size and round(math.sqrt(area / ratio)) < size:
                order += of_box[20:].tolist()
                break
    return order


@pytest.mark.parametrize(
    "erasing",
    [
        RandomErasing(0.35),
        RandomErasing(0.6, count=3),
        RandomErasing(1.0, area=(0.5, 1.0), aspect=(0.1, 10.0), count=2),  # most attempts do not fit
    ],
)
def test_pixels_are_erased_as_by_timm(erasing: RandomErasing, monkeypatch: pytest.MonkeyPatch) -> None:
    size = 25
    draws = uniforms(3, 1, IMAGES, _OF_IMAGE + erasing.count * _OF_BOX, use=Use.ERASING)
    numbers = iter([n for row in draws for n in (in_order_of_timm(row, erasing, size) if row[0] < erasing.probability
                                                 else [row[0]])])  # fmt: skip
    monkeypatch.setattr(random, "random", lambda: next(numbers))
    monkeypatch.setattr(random, "uniform", lambda low, high: low + next(numbers) * (high - low))
    monkeypatch.setattr(random, "randint", lambda low, high: low + int(next(numbers) * (high - low + 1)))
    theirs: Any = TimmErasing(  # type: ignore[no-untyped-call]
        erasing.probability, *erasing.area, *erasing.aspect, max_count=erasing.count, device="cpu"
    )
    boxes = erasing.draw_boxes(3, 1, IMAGES, None, size)
    assert boxes is not None
    assert boxes.shape == (len(IMAGES), erasing.count, 4)
    pixels = torch.ones(len(IMAGES), 3, size, size)
    expected = theirs(pixels.clone())
    assert torch.equal(erasing(pixels, boxes), expected)
    assert next(numbers, None) is None
    assert 0 < int((expected == 0).sum()) < expected.numel()


def test_one_box_is_torchvisions(monkeypatch: pytest.MonkeyPatch) -> None:
    """By its parameters from our draws; its logarithms and areas are of fp32 here."""
    erasing = RandomErasing(1.0, area=(0.02, 0.33), aspect=(0.3, 3.3))
    draws = uniforms(3, 1, IMAGES, _OF_IMAGE + _OF_BOX, use=Use.ERASING)
    image = torch.empty(3, 224, 224)
    for of_image, box in zip(draws, erasing.boxes(draws, 224), strict=True):
        numbers = iter(in_order_of_timm(of_image, erasing, 224)[1:])
        monkeypatch.setattr(
            torch.Tensor, "uniform_", lambda t, low, high, n=numbers: t.fill_(low + next(n) * (high - low))
        )
        monkeypatch.setattr(torch, "randint", lambda low, high, size, n=numbers: torch.tensor([int(next(n) * high)]))
        assert TorchvisionErasing.get_params(image, (0.02, 0.33), (0.3, 3.3), [0.0])[:4] == tuple(box[0].tolist())


def test_areas_aspects_and_places_are_distributed_as_stated() -> None:
    erasing, size, n = RandomErasing(0.25, count=2), 224, 40_000
    boxes = erasing.draw_boxes(0, 0, np.arange(n), None, size)
    assert boxes is not None
    top, left, height, width = boxes.numpy().astype(np.float64).transpose(2, 0, 1)
    per_image = (height > 0).sum(1)
    erased = per_image > 0
    assert erased.mean() == pytest.approx(0.25, abs=5 * math.sqrt(0.25 * 0.75 / n))
    assert (per_image[erased] == 2).mean() == pytest.approx(0.5, abs=5 * math.sqrt(0.25 / erased.sum()))
    one = per_image == 1
    area, aspect = (height * width)[one, 0] / size**2, np.log(height[one, 0] / width[one, 0])
    # Uniform from 0.02 to 1/3; of tall or flat boxes, a few large ones do not fit.
    assert area.mean() == pytest.approx((0.02 + 1 / 3) / 2, abs=0.01)
    assert (area.min(), area.max()) == pytest.approx((0.02, 1 / 3), abs=0.003)
    assert aspect.mean() == pytest.approx(0, abs=5 * 0.7 / math.sqrt(one.sum()))
    assert np.abs(aspect).max() == pytest.approx(math.log(1 / 0.3), abs=0.05)
    assert (height * width)[per_image == 2].mean() / size**2 == pytest.approx((0.02 + 1 / 3) / 4, abs=0.005)
    for start, side in ((top, height), (left, width)):
        place = (start[one, 0] + 0.5) / (size - side[one, 0] + 1)
        assert place.mean() == pytest.approx(0.5, abs=5 * math.sqrt(1 / 12 / one.sum()))
        assert (start + side).max() <= size


def test_boxes_have_draws_of_their_own_for_each_repetition() -> None:
    erasing = RandomErasing(1.0)
    first, again = (erasing.draw_boxes(0, 0, IMAGES, np.full(len(IMAGES), r), 64) for r in (0, 1))
    alone = erasing.draw_boxes(0, 0, IMAGES, None, 64)
    assert first is not None
    assert again is not None
    assert alone is not None
    assert torch.equal(first, alone)
    assert (first != again).any(2).float().mean() > 0.99
    assert not np.any(uniforms(0, 0, IMAGES, 9, use=Use.ERASING) == uniforms(0, 0, IMAGES, 9))
    assert RandomErasing(0.0).draw_boxes(0, 0, IMAGES, None, 64) is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_noise_is_normal_in_the_boxes_and_nowhere_else(dtype: torch.dtype) -> None:
    erasing = RandomErasing(1.0, "pixel", count=2)
    boxes = torch.tensor([[[0, 0, 0, 0], [0, 0, 0, 0]], [[1, 2, 40, 50], [30, 9, 30, 50]]], dtype=torch.int32)
    results = []
    for layout in (torch.channels_last, torch.contiguous_format):
        pixels = torch.full((2, 3, 64, 64), 7.0, dtype=dtype).contiguous(memory_format=layout)
        torch.manual_seed(0)
        results.append(erasing(pixels, boxes))
        assert results[-1].is_contiguous(memory_format=layout)
    assert torch.equal(*results), "the same in any memory layout"
    assert (results[0][0] == 7).all()
    inside = torch.zeros(64, 64, dtype=torch.bool)
    inside[1:41, 2:52] = inside[30:60, 9:59] = True
    assert (results[0][1, :, ~inside] == 7).all()
    noise = results[0][1, :, inside].double()
    assert noise.mean().item() == pytest.approx(0, abs=5 / math.sqrt(noise.numel()))
    assert noise.std().item() == pytest.approx(1, abs=5 / math.sqrt(2 * noise.numel()))


def test_the_recipes_erasing_is_the_sections() -> None:
    section = EraseSection(probability=0.2, value="pixel", count=4, area=(0.1, 0.2), aspect=(0.5, 2.0))
    assert build_erasing(section) == RandomErasing(0.2, "pixel", 4, (0.1, 0.2), (0.5, 2.0))
    assert build_erasing(EraseSection()) == RandomErasing()
