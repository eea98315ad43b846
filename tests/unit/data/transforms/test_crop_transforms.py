from __future__ import annotations

import io
import itertools
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.io import decode_jpeg
from torchvision.transforms import v2

from resnext_train.config import load_recipe
from resnext_train.data.batch_datasets import empty_batch
from resnext_train.data.build_loaders import build_color_transform, build_crop_transform
from resnext_train.data.decode.lazy_image import DecodedImage, open_image
from resnext_train.data.rng import uniforms
from resnext_train.data.transforms.crop_transforms import (
    AreaTransform,
    EvalTransform,
    PadTransform,
    ScaleTransform,
    sample_box,
    sample_scaled_box,
)
from resnext_train.data.transforms.random_draws import BOX_DRAWS, CropDraws, image_draws
from resnext_train.errors import InputError


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
    ours = EvalTransform(256, 224, interpolation)(open_image(data))
    assert torch.equal(ours, reference(decoded))
    assert ours.shape == (3, 224, 224)


@pytest.mark.parametrize(("height", "width"), [(375, 500), (500, 375), (64, 64), (30, 900), (2, 2), (1, 1)])
def test_boxes_lie_within_the_image_and_within_the_ranges(height: int, width: int) -> None:
    areas, ratios, corners = [], [], []
    for draws in uniforms(0, 0, np.arange(2000), BOX_DRAWS):
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
    draws = np.full(BOX_DRAWS, 0.999)
    assert sample_box(draws, 10, 1000, (0.9, 1.0), (1.0, 1.1)) == (0, 495, 10, 10)


def test_the_crop_is_the_resized_box_and_flips_by_its_own_draw() -> None:
    image = open_image(jpeg(90, 70))
    transform = AreaTransform(48, "bilinear", 0.5, (0.3, 1.0), (0.75, 4 / 3))
    draws = image_draws(0, 0, np.array([3]))[0][0]
    top, left, h, w = sample_box(draws.box, 70, 90, (0.3, 1.0), (0.75, 4 / 3))
    expected = v2.functional.resized_crop(image.region(0, 0, 70, 90), top, left, h, w, [48, 48], antialias=True)
    assert torch.equal(transform(image, draws._replace(flip=0.6)), expected)
    assert torch.equal(transform(image, draws._replace(flip=0.4)), expected.flip(-1))


@pytest.mark.parametrize("size", [(500, 375), (90, 70), (1000, 301), (64, 64), (224, 224), (3, 50), (1, 1)])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_the_quick_resize_is_torchvisions(size: tuple[int, int], interpolation: str) -> None:
    """With the memory layouts that come up: a box of a larger image, the whole image, a flipped one."""
    image = open_image(jpeg(*size))
    transform = AreaTransform(224, interpolation, 0.5, (0.08, 1.0), (0.75, 4 / 3))
    for draws in image_draws(0, 0, np.arange(20))[0]:
        box = image.region(*transform.box(draws.box, image.height, image.width))
        mode = v2.InterpolationMode(interpolation)
        expected = v2.functional.resize(box, [224, 224], mode, antialias=True)
        if draws.flip < 0.5:
            expected = v2.functional.horizontal_flip(expected)
        assert torch.equal(transform(image, draws), expected)


def test_scale_jitter_by_hand() -> None:
    """600 × 400: a short side of 320 makes a crop of 224 cover 224 · 400 / 320 = 280 pixels of the image."""
    draws = np.zeros(BOX_DRAWS)
    draws[:3] = (320 - 256 + 0.5) / 225, 0.0, 0.999
    assert sample_scaled_box(draws, 400, 600, 224, (256, 480)) == (0, 320, 280, 280)
    draws[:3] = 0.0, 0.5, 0.5  # short side 256: 350 pixels; the middle of 51 and of 251 positions
    assert sample_scaled_box(draws, 400, 600, 224, (256, 480)) == (25, 125, 350, 350)
    draws[0] = 0.9999  # 480: 186.67 pixels
    assert sample_scaled_box(draws, 400, 600, 224, (256, 480))[2:] == (187, 187)
    assert sample_scaled_box(draws, 4000, 6000, 224, (256, 480))[2:] == (1867, 1867), "480 and not 479 is the largest"


@pytest.mark.parametrize(("height", "width"), [(375, 500), (64, 64), (30, 900), (2, 2), (1, 1)])
def test_scale_jitter_draws_every_short_side_equally_often(height: int, width: int) -> None:
    sides = []
    for draws in uniforms(0, 0, np.arange(4500), BOX_DRAWS):
        top, left, h, w = sample_scaled_box(draws, height, width, 224, (256, 480))
        assert h == w >= 1
        assert 0 <= top <= height - h
        assert 0 <= left <= width - w
        sides.append(h)
    if height == 375:
        # 20 draws of each of 225 short sides; their boxes are 328 to 175 pixels wide
        assert (max(sides), min(sides)) == (328, 175)
        short = [224 * 375 / s for s in sides]
        assert np.mean(short) == pytest.approx((256 + 480) / 2, abs=5 * 65 / np.sqrt(4500))


def test_a_recipe_with_scale_jitter_makes_crops_of_its_size(tmp_path: Path) -> None:
    recipe = load_recipe("resnet34_shortcut_b.yaml")
    transform = build_crop_transform(recipe, 0)
    assert isinstance(transform, ScaleTransform)
    assert transform.short_side == (256, 480)
    assert transform(open_image(jpeg(500, 375)), image_draws(0, 0, np.array([1]))[0][0]).shape == (3, 224, 224)
    with pytest.raises(InputError, match=r"augment\.short_side .*augment\.size <= low"):
        load_recipe("resnet34_shortcut_b.yaml", ["augment.short_side=[200,480]"])


def offset_draws(down: int, right: int, positions: int) -> CropDraws:
    """Draws in the middle of what stands for an offset, and no flip."""
    box = np.full(BOX_DRAWS, 0.99)
    box[:2] = (down + 0.5) / positions, (right + 0.5) / positions
    return CropDraws(box, 0.99)


FILL = (125, 7, 200)


@pytest.mark.parametrize(("size", "padding"), [(6, 2), (3, 5), (8, 0)])
def test_a_padded_crop_at_every_offset(size: int, padding: int) -> None:
    """Of the whole padded image, as torchvision makes it; with much padding, some crops hold nothing of the image."""
    image = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, size, size), dtype=np.uint8))
    transform = PadTransform(size, padding, FILL, "bicubic", flip=0.5)
    padded = v2.functional.pad(image, [padding] * 4, fill=list(FILL))
    positions = 2 * padding + 1
    for down, right in itertools.product(range(positions), repeat=2):
        draws = offset_draws(down, right, positions)
        expected = v2.functional.crop(padded, down, right, size, size)
        assert torch.equal(transform(DecodedImage(image), draws), expected)
        assert torch.equal(transform(DecodedImage(image), draws._replace(flip=0.49)), expected.flip(-1))
        crops = np.zeros((2, size, size, 3), np.uint8)
        both = np.stack([image.permute(1, 2, 0).numpy()] * 2)
        assert transform.crop_decoded(both, [draws, draws._replace(flip=0.49)], crops)
        assert np.array_equal(crops[0], expected.permute(1, 2, 0))
        assert np.array_equal(crops[1], expected.flip(-1).permute(1, 2, 0))


@pytest.mark.slow
def test_padded_crops_reach_every_offset_equally_often() -> None:
    image = torch.arange(1, 26, dtype=torch.uint8).view(1, 5, 5).expand(3, 5, 5)
    transform = PadTransform(5, 2, (0, 0, 0), "bicubic", flip=0.0)
    draws, _ = image_draws(0, 0, np.arange(10_000))
    counts = Counter(transform(DecodedImage(image), d).numpy().tobytes() for d in draws)
    assert len(counts) == 25
    # 400 expected at each of 25 offsets: within five standard deviations
    assert all(abs(n - 400) < 5 * np.sqrt(10_000 * (1 / 25) * (24 / 25)) for n in counts.values())


@pytest.mark.parametrize("size", [(64, 64), (50, 40), (32, 33), (20, 28)])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_images_of_other_sizes_are_resized_before_padding(size: tuple[int, int], interpolation: str) -> None:
    image = open_image(jpeg(*size))
    reference = v2.Compose(
        [
            v2.Resize(32, interpolation=v2.InterpolationMode(interpolation), antialias=True),
            v2.CenterCrop(32),
            v2.Pad(4, fill=list(FILL)),
        ]
    )
    padded = reference(image.region(0, 0, image.height, image.width))
    crop = PadTransform(32, 4, FILL, interpolation, flip=0.0)(image, offset_draws(1, 7, 9))
    assert torch.equal(crop, padded[:, 1:33, 7:39])


@pytest.mark.parametrize("mean", [(0.4914, 0.4822, 0.4465), (0.0, 1.0, 0.123)])
def test_the_padding_is_zero_after_normalisation_up_to_half_a_level(
    mean: tuple[float, float, float], tmp_path: Path
) -> None:
    std = (0.247, 0.2435, 0.2616)
    (tmp_path / "r.yaml").write_text(
        f"model: {{arch: resnet18}}\ntrain: {{epochs: 1}}\ndata: {{mean: {list(mean)}, std: {list(std)}}}\n"
        "augment: {crop: pad, size: 32, padding: 4}\n"
    )
    recipe = load_recipe(str(tmp_path / "r.yaml"))
    crop = build_crop_transform(recipe, 0)(
        DecodedImage(torch.full((3, 32, 32), 99, dtype=torch.uint8)), offset_draws(0, 8, 9)
    )
    normalised = build_color_transform(recipe)(crop.unsqueeze(0), None)[0]
    border = torch.ones(32, 32, dtype=torch.bool)
    border[4:, :28] = False
    assert (crop[:, ~border] == 99).all()
    half_a_level = torch.tensor([0.5 / 255 / s for s in std]).view(3, 1)
    assert (normalised[:, border].abs() <= half_a_level + 1e-6).all()


def test_batches_are_channels_last_and_shared_on_demand() -> None:
    for shared in (False, True):
        batch = empty_batch(3, 8, shared)
        assert batch.shape == (3, 3, 8, 8)
        assert batch.is_contiguous(memory_format=torch.channels_last)
        assert batch.is_shared() == shared


def test_regions_are_views() -> None:
    pixels = torch.arange(3 * 4 * 5, dtype=torch.uint8).view(3, 4, 5)
    region = DecodedImage(pixels).region(1, 2, 2, 3)
    assert torch.equal(region, pixels[:, 1:3, 2:5])
    assert region.data_ptr() == pixels[:, 1:, 2:].data_ptr()
