"""Crops with augment.aspect_law=log are torchvision's."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torchvision.transforms import RandomResizedCrop

from resnext_train.config import load_recipe
from resnext_train.data.build_loaders import build_crop_transform
from resnext_train.data.rng import uniforms
from resnext_train.data.transforms.crop_transforms import AreaTransform, sample_log_box
from resnext_train.data.transforms.random_draws import BOX_DRAWS

SCALE, RATIO = (0.08, 1.0), (0.75, 4 / 3)


@pytest.mark.parametrize(
    ("height", "width"), [(375, 500), (500, 375), (64, 64), (224, 225), (20, 300), (300, 20), (3, 50), (2, 1), (1, 1)]
)
def test_boxes_are_those_of_random_resized_crop(height: int, width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """By our draws in the place of torch's, with its logarithms in fp64; long images go to its last resort."""
    image = torch.empty(1, height, width)
    draws: Iterator[float] = iter(())
    monkeypatch.setattr(torch.Tensor, "uniform_", lambda t, low, high: t.fill_(low + next(draws) * (high - low)))
    monkeypatch.setattr(torch, "randint", lambda low, high, size: torch.tensor([int(next(draws) * high)]))
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        for numbers in uniforms(4, 2, np.arange(300), BOX_DRAWS):
            ours = sample_log_box(numbers, height, width, SCALE, RATIO)
            attempts = numbers.reshape(-1, 5)
            fitting = next((n for n, (a, r, *_) in enumerate(attempts) if fits(a, r, height, width)), None)
            used = attempts[: None if fitting is None else fitting + 1]
            draws = iter([n for a, r, *_ in used for n in (a, r)] + used[-1, 3:].tolist())
            assert RandomResizedCrop.get_params(image, list(SCALE), list(RATIO)) == ours
    finally:
        torch.set_default_dtype(before)


def fits(a: float, r: float, height: int, width: int) -> bool:
    area = (SCALE[0] + a * (SCALE[1] - SCALE[0])) * height * width
    ratio = RATIO[0] * math.pow(RATIO[1] / RATIO[0], r)
    return 0 < round(math.sqrt(area * ratio)) <= width and 0 < round(math.sqrt(area / ratio)) <= height


def test_torchvisions_recipes_have_torchvisions_crop() -> None:
    transform = build_crop_transform(load_recipe("googlenet.yaml"), 0)
    assert isinstance(transform, AreaTransform)
    draws = np.full(BOX_DRAWS, 0.5)
    # The middle of log-uniform aspects from 3/4 to 4/3 is 1: a square of 0.54 · 400 · 400 pixels, in the middle.
    assert transform.box(draws, 400, 400) == (53, 53, 294, 294)
