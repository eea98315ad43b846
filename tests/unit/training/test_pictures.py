"""What trackers are shown beside numbers, against its definition."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn
from torch.optim import SGD

from helpers.steps import MICRO_BATCHES, NETWORK, step_images, train_step
from resnext_train.distributed.dist_context import connect
from resnext_train.models.build_model import build_model
from resnext_train.training.pictures import Pictures, first_filters, grid
from resnext_train.training.train_step import KeptImages


def test_a_grid_has_its_images_row_by_row() -> None:
    images = np.stack([np.full((2, 3, 3), value, np.uint8) for value in (10, 20, 30)])
    picture = grid(images)
    assert picture.shape == (5, 7, 3)
    assert [picture[0, 0, 0], picture[0, 4, 0], picture[3, 0, 0], picture[3, 4, 0], picture[2, 0, 0]] == [
        *(10, 20, 30, 0, 0),
    ]


def test_filters_are_stretched_from_black_to_white_with_their_colours() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 16, bias=False))
    weight = torch.zeros(4, 3, 16, 16)
    weight[0, 0], weight[0, 1] = -2.0, 2.0  # red low, green high, blue between
    model[0].weight = nn.Parameter(weight)
    picture = first_filters(model)
    assert picture is not None
    assert picture.shape == (33, 33, 3)
    assert picture[5, 5].tolist() == [0, 255, 128]
    assert first_filters(nn.Sequential(nn.Conv2d(1, 4, 3))) is None


def test_images_are_kept_until_there_are_enough_as_copies() -> None:
    kept, pixels = KeptImages(), torch.arange(4 * 3 * 2 * 2.0).reshape(4, 3, 2, 2)
    kept.add(pixels)
    assert kept.take() is None, "none were asked for"
    kept.keep(6)
    expected = torch.cat([pixels, pixels[:2]]).clone()
    kept.add(pixels)
    kept.add(pixels)
    kept.add(pixels)
    pixels.zero_()
    images = kept.take()
    assert images is not None
    assert torch.equal(images, expected)
    assert kept.take() is None


def test_images_are_of_the_first_step_alone() -> None:
    """Those of later steps may be larger, as where crops grow, and make no picture with them."""
    with connect() as context:
        model = build_model(NETWORK, 4, seed=0)
        step, size = train_step(model, SGD(model.parameters(), 0.0), context), 4 * MICRO_BATCHES
        step.kept_images.keep(size + 1)
        for number in (0, 1):
            step(iter(step_images(size, number)), number, size, 0.0)
    images = step.kept_images.take()
    assert images is not None
    assert len(images) == size


class Log:
    """What was handed to a log."""

    takes_arrays = True

    def __init__(self) -> None:
        self.histograms: dict[int, NDArray[np.float64]] = {}
        self.pictures: dict[str, tuple[NDArray[np.uint8], int]] = {}

    def histogram(self, name: str, values: NDArray[np.float64], step: int) -> None:
        self.histograms[step] = values

    def picture(self, name: str, pixels: NDArray[np.uint8], step: int) -> None:
        self.pictures[name] = pixels, step


@pytest.mark.parametrize("clip_norm", [None, 1e-3])
def test_norms_are_those_of_the_gradient_and_images_those_the_network_saw(clip_norm: float | None) -> None:
    """By autograd's gradients before the step, and by the mean and deviation that the images were normalised with."""
    with connect() as context:
        model = build_model(NETWORK, 4, seed=0)
        step = train_step(model, SGD(model.parameters(), 0.0), context, clip_norm=clip_norm)
        log, seen = Log(), list[torch.Tensor]()
        pictures: Any = Pictures.__new__(Pictures)
        pictures._train_step, pictures._log = step, log
        pictures._mean, pictures._std = np.float32(0.5), np.float32(0.25)
        pictures.begin(0)
        first = next(module for module in model.modules() if isinstance(module, nn.Conv2d))
        first.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach().clone()))
        size = 4 * MICRO_BATCHES
        step.compute_gradients(iter(step_images(size, 0)), 0, size)
        expected = [float(p.grad.double().square().sum().sqrt()) for p in model.parameters() if p.grad is not None]
        step(iter(step_images(size, 0)), 0, size, 0.0)
        pictures.log_step(1)
    assert log.histograms[1] == pytest.approx(expected, rel=1e-4)
    picture, number = log.pictures["train/images"]
    assert number == 1
    colours = (255 * (0.25 * seen[0][0].permute(1, 2, 0) + 0.5)).round().clamp(0, 255)
    side = colours.shape[0]
    assert np.abs(picture[:side, :side].astype(int) - colours.numpy()).max() <= 1
