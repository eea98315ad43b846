from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.io import decode_jpeg
from torchvision.transforms import v2

from resnext_train.data.jpeg import Pixels, open_picture
from resnext_train.data.randomness import uniforms
from resnext_train.data.transforms import (
    CROP_DRAWS,
    DRAWS,
    EvalTransform,
    TrainTransform,
    empty_batch,
    sample_box,
)


def jpeg(width: int, height: int, seed: int = 0, **options: object) -> bytes:
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, "JPEG", **options)
    return file.getvalue()


SIZES = [
    (500, 375),
    (375, 500),
    (256, 256),
    (64, 64),
    (257, 300),
    (1000, 301),
    (33, 700),
    (8, 8),
    (1, 1),
    (3, 50),
    (224, 225),
]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_evaluation_pixels_are_torchvisions(size: tuple[int, int], interpolation: str) -> None:
    data = jpeg(*size, quality=90)
    reference = v2.Compose(
        [
            v2.Resize(256, interpolation=v2.InterpolationMode(interpolation), antialias=True),
            v2.CenterCrop(224),
        ]
    )
    decoded = decode_jpeg(torch.frombuffer(bytearray(data), dtype=torch.uint8), mode="RGB")
    ours = EvalTransform(256, 224, interpolation)(open_picture(data))
    assert torch.equal(ours, reference(decoded))
    assert ours.shape == (3, 224, 224)


@pytest.mark.parametrize(("height", "width"), [(375, 500), (500, 375), (64, 64), (30, 900), (2, 2), (1, 1)])
def test_boxes_lie_within_the_image_and_within_the_ranges(height: int, width: int) -> None:
    areas, ratios, corners = [], [], []
    for draws in uniforms(0, 0, np.arange(2000), CROP_DRAWS):
        top, left, h, w = sample_box(draws, height, width, (0.08, 1.0), (3 / 4, 4 / 3))
        assert top >= 0
        assert top + h <= height
        assert left >= 0
        assert left + w <= width
        assert min(h, w) >= 1
        areas.append(h * w / (height * width))
        ratios.append(w / h)
        corners.append((top, left))
    if min(height, width) > 100:
        assert 0.07 < min(areas) < 0.1
        assert 0.9 < max(areas) <= 1
        assert 0.74 < min(ratios) < 0.8
        assert 1.25 < max(ratios) < 1.35
        assert np.mean(np.array(ratios) > 1) == pytest.approx(0.5, abs=0.1), (
            "width and height are swapped half the time"
        )
        assert len(set(corners)) > 1000


def test_the_box_of_given_draws_by_hand() -> None:
    """200 × 100, area draw 0.5 of (0.2, 0.6): 0.4 · 20,000 = 8,000; aspect draw 1 of (0.5, 0.8): 0.8, so 80 × 100."""
    draws = np.zeros((10, 5))
    draws[0] = (
        0.5,
        1.0,
        0.9,
        0.0,
        0.999,
    )  # not swapped: w = sqrt(8000 · 0.8) = 80, h = sqrt(8000 / 0.8) = 100
    assert sample_box(draws.ravel(), 200, 100, (0.2, 0.6), (0.5, 0.8)) == (0, 20, 100, 80)
    draws[0] = (0.5, 1.0, 0.1, 0.999, 0.0)  # swapped: 100 wide, 80 high
    assert sample_box(draws.ravel(), 200, 100, (0.2, 0.6), (0.5, 0.8)) == (120, 0, 80, 100)


def test_the_fallback_is_the_centred_square() -> None:
    draws = np.full(CROP_DRAWS, 0.999)
    assert sample_box(draws, 10, 1000, (0.9, 1.0), (1.0, 1.1)) == (0, 495, 10, 10)


def test_the_crop_is_the_resized_box_and_flips_by_its_own_draw() -> None:
    picture = open_picture(jpeg(90, 70))
    transform = TrainTransform(48, (0.3, 1.0), (0.75, 4 / 3), "bilinear", flip=0.5)
    draws = uniforms(0, 0, np.array([3]), DRAWS)[0]
    top, left, h, w = sample_box(draws[:CROP_DRAWS], 70, 90, (0.3, 1.0), (0.75, 4 / 3))
    expected = v2.functional.resized_crop(picture.region(0, 0, 70, 90), top, left, h, w, [48, 48], antialias=True)
    draws[CROP_DRAWS] = 0.6
    assert torch.equal(transform(picture, draws), expected)
    draws[CROP_DRAWS] = 0.4
    assert torch.equal(transform(picture, draws), expected.flip(-1))


def test_batches_are_channels_last_and_shared_on_demand() -> None:
    for shared in (False, True):
        batch = empty_batch(3, 8, shared)
        assert batch.shape == (3, 3, 8, 8)
        assert batch.is_contiguous(memory_format=torch.channels_last)
        assert batch.is_shared() == shared


def test_regions_are_views() -> None:
    pixels = torch.arange(3 * 4 * 5, dtype=torch.uint8).view(3, 4, 5)
    region = Pixels(pixels).region(1, 2, 2, 3)
    assert torch.equal(region, pixels[:, 1:3, 2:5])
    assert region.data_ptr() == pixels[:, 1:, 2:].data_ptr()
