"""What our code is said to do beside the recipe is what it does.

Each test compares the code's behaviour with the words or numbers of `CODE_POINTS`; expected values are arithmetic or
another library's.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.transforms import v2

from resnext_train.config import load_recipe
from resnext_train.config.fidelity.code_points import CODE_POINTS, NO_FACTS
from resnext_train.data.transforms.color_transform import ColorTransform
from resnext_train.data.transforms.crop_transforms import (
    AreaTransform,
    EvalTransform,
    PadTransform,
    sample_box,
    sample_log_box,
)
from resnext_train.data.transforms.random_draws import BOX_DRAWS, NO_DRAWS, ColorDraws, CropDraws
from resnext_train.models.build_model import build_model
from resnext_train.training.lr_schedule import build_schedule
from resnext_train.training.optimizer import build_optimizer


def ours(point: str, recipe: str = "resnext50_32x4d") -> Any:
    return CODE_POINTS[point].ours(load_recipe(recipe), NO_FACTS)


def stripes(width: int) -> torch.Tensor:
    """An image (3, 8, width) of columns that are black and white in turn."""
    return (255 * (torch.arange(width) % 2)).expand(3, 8, width).to(torch.uint8)


def resized(image: torch.Tensor, size: int) -> torch.Tensor:
    return AreaTransform(size, "bilinear", 0.0, (1.0, 1.0), (1.0, 1.0)).crop(image, NO_DRAWS)


def test_resizes_are_antialiased_and_in_whole_levels() -> None:
    """Half of the columns are white: an antialiased resize to a fourth is gray, one by points is not."""
    assert ours("resize_antialias") is True
    assert ours("resize_rounding") == "whole, 0 to 255"
    for small in (resized(stripes(32), 8), EvalTransform(2, 2, "bilinear").crop(stripes(8), NO_DRAWS)):
        assert small.dtype == torch.uint8
        assert small.float().mean().item() == pytest.approx(127.5, abs=1)
        assert small.float().std().item() < 20
    steep = torch.zeros(3, 8, 8, dtype=torch.uint8)
    steep[..., 4:] = 255
    kernel = AreaTransform(16, "bicubic", 0.0, (1.0, 1.0), (1.0, 1.0)).crop(steep, NO_DRAWS)
    assert (kernel.min().item(), kernel.max().item()) == (0, 255), "where a cubic kernel overshoots by a tenth"


def test_resizes_align_the_edges_of_both_images() -> None:
    """Of a ramp 0, 10, ... twice as large, edges that coincide make the second pixel 2.5, corner pixels would 4.7."""
    assert ours("resize_alignment") == "the edges of both images"
    ramp = (10 * torch.arange(8)).expand(3, 8, 8).to(torch.uint8)
    assert resized(ramp, 16)[0, 0, 1].item() in (2, 3)


def test_boxes_that_do_not_fit() -> None:
    """A box of all the area and aspect 2 or 1/2 does not fit a square or a thin image."""
    assert ours("crop_attempts") == 10
    assert BOX_DRAWS == 10 * 5, "area, aspect, swap, row and column of each"
    draws = np.full(BOX_DRAWS, 0.999)
    assert sample_box(draws, 40, 100, (1.0, 1.0), (1.0, 1.0)) == (0, 30, 40, 40), ours("crop_fallback")
    assert ours("crop_fallback").startswith("the largest square")
    assert sample_log_box(draws, 40, 100, (1.0, 1.0), (0.5, 2.0)) == (0, 10, 40, 80)
    assert ours("crop_fallback", "torchvision/resnet50") == "the largest box of an allowed aspect"


def test_a_box_may_be_anywhere() -> None:
    """With draws just below 1, the box touches the last row and column."""
    assert ours("crop_position") == "all"
    top, left, height, width = sample_box(np.full(BOX_DRAWS, 0.9999), 90, 90, (0.25, 0.25), (1.0, 1.0))
    assert (top + height, left + width) == (90, 90)


def test_padding_is_in_whole_levels() -> None:
    assert ours("pad_fill", "cifar/resnet20") == "the mean colour, rounded to whole levels"
    image = torch.zeros(3, 4, 4, dtype=torch.uint8)
    corner = PadTransform(4, 2, (125, 123, 114), "bilinear", 0.0).crop(image, CropDraws(np.zeros(BOX_DRAWS), 1.0))
    assert corner[:, 0, 0].tolist() == [125, 123, 114]  # CIFAR-10's mean is 125.3 123.0 113.9


def colours(order: float, factors: tuple[float, float, float], transform: ColorTransform) -> torch.Tensor:
    draws = ColorDraws(np.array([order]), np.array([factors]), np.zeros((1, 2)), np.zeros((1, 2)))
    maps = transform.draw_maps(draws)
    assert maps is not None
    image = torch.tensor([[250, 200], [30, 60]], dtype=torch.uint8).expand(1, 3, 2, 2)
    return transform(image, torch.from_numpy(maps))


def test_colours_are_multiplied_in_any_order_and_not_clamped() -> None:
    assert ours("brightness") == "multiplied"
    assert ours("colours_clamped") is False
    assert ours("jitter_order") == "random"
    plain = ColorTransform(0.4, 0.4, 0.4, 0.0, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    bright = colours(0.0, (1.0, 0.5, 0.5), plain)
    assert bright.max().item() == pytest.approx(1.4 * 250 / 255, rel=1e-5)
    drawn = ColorDraws(np.arange(6) / 6 + 0.01, np.ones((6, 3)), np.zeros((6, 2)), np.zeros((6, 2)))
    assert {tuple(order) for order in plain.draw_jitter(drawn)[:, :3].tolist()} == set(itertools.permutations(range(3)))


def test_gray_and_lighting_are_the_numbers_that_are_compared() -> None:
    """A desaturated red, green or blue is its weight; a normal draw of 1 shifts by eigenvector times eigenvalue."""
    gray = ColorTransform(0.0, 0.0, 1.0, 0.0, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    draws = ColorDraws(np.zeros(1), np.array([[0.5, 0.5, 0.0]]), np.zeros((1, 2)), np.zeros((1, 2)))
    maps = gray.draw_maps(draws)
    assert maps is not None
    image = 255 * torch.eye(3, dtype=torch.uint8).view(1, 3, 3, 1)
    assert gray(image, torch.from_numpy(maps))[0, 0, :, 0].tolist() == pytest.approx(ours("gray"), abs=1e-6)
    lighting = ColorTransform(0.0, 0.0, 0.0, 0.1, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    radius = 1 - math.exp(-0.5)  # Box-Muller: sqrt(-2 ln(1 - radius)) is 1
    shift = lighting.draw_jitter(ColorDraws(np.zeros(1), np.zeros((1, 3)), np.array([[radius, 0.0]]), np.zeros((1, 2))))
    first = [row[0] * ours("lighting_eigenvalues")[0] * 0.1 for row in ours("lighting_eigenvectors")]
    assert shift[0, 6:].tolist() == pytest.approx(first, rel=1e-5)


def test_evaluation_crops_are_torchvisions() -> None:
    """Margins of 1 and 3 are cut at their half rounded to even: before pixels 0 and 2."""
    assert ours("eval_center") == "rounded to even"
    assert ours("eval_order") == "resized, then cut"
    for width, first in ((9, 0), (11, 2)):
        image = (20 * torch.arange(width)).clamp(max=255).expand(3, 8, width).to(torch.uint8)
        crop = EvalTransform(8, 8, "bilinear").crop(image, NO_DRAWS)
        assert crop[0, 0, 0].item() == 20 * first
        assert torch.equal(crop, v2.functional.center_crop(image, [8, 8]))


def test_networks_start_as_compared() -> None:
    network = build_model(load_recipe("resnext50_32x4d", ["model.arch=resnet50", "model.width=0.25"]).model, 1000)
    fc = network.get_submodule("fc")
    assert isinstance(fc, nn.Linear)
    assert fc.bias.eq(ours("classifier_bias")).all()
    assert ours("classifier_weights") == "U(±1/√inputs)"
    bound = 1 / math.sqrt(fc.in_features)
    assert fc.weight.abs().max().item() == pytest.approx(bound, rel=1e-2)
    assert fc.weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=1e-2)
    assert ours("bottleneck_stride") == "3×3"
    first, second = (network.get_submodule(f"layer2.0.conv{n}") for n in (1, 2))
    assert isinstance(first, nn.Conv2d)
    assert isinstance(second, nn.Conv2d)
    assert (first.kernel_size, first.stride) == ((1, 1), (1, 1))
    assert (second.kernel_size, second.stride) == ((3, 3), (2, 2))
    assert ours("bottleneck_stride", "resnet18") is None


@pytest.mark.parametrize("decays", [True, False])
def test_all_vectors_go_without_decay_or_none(decays: bool) -> None:
    assert ours("decay_exempt") == "all vectors"
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Linear(4, 2))
    section = load_recipe("smoke", [f"optimizer.decay_1d={str(decays).lower()}"]).optimizer
    groups = build_optimizer(section, network).param_groups
    decay = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    for parameter in network.parameters():
        assert (decay[id(parameter)] > 0) == (decays or parameter.ndim > 1)


def test_the_learning_rate_changes_with_each_step_after_the_warm_up() -> None:
    assert ours("lr_changes") == "each step"
    assert ours("cosine_start") == "after the warm-up"
    assert ours("last_epochs") == 0
    recipe = load_recipe("pycls/resnext50_32x4d")
    schedule = build_schedule(recipe.schedule, 0.2, 100, 100 * 100)
    assert schedule.lr(500) == pytest.approx(0.2), "the peak, after five epochs"
    assert schedule.lr(501) < schedule.lr(500)
    assert schedule.lr(9999) < 1e-6
