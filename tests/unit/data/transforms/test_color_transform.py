"""The one-matrix colour step against the plain chain of operations of the papers' code."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from helpers.evaluation import evaluated
from helpers.steps import train_step
from resnext_train.data.transforms.color_transform import JITTER_FIELDS, ColorTransform, mapped_as_on_gpus
from resnext_train.data.transforms.random_draws import image_draws

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
PAPER = ColorTransform(0.4, 0.4, 0.4, 0.1, MEAN, STD)


def step_by_step(image: NDArray[np.uint8], jitter: NDArray[np.float64]) -> NDArray[np.float64]:
    """fb.resnet.torch's ColorJitter, Lighting and ColorNormalize on one image (H, W, 3), one operation at a time."""
    x = image.astype(np.float64) / 255
    for operation in jitter[:3].astype(int):
        alpha = jitter[3 + operation]
        gray = (x @ [0.299, 0.587, 0.114])[..., None]
        target = {0: np.zeros_like(x), 1: np.full_like(x, gray.mean()), 2: np.broadcast_to(gray, x.shape)}[operation]
        x = alpha * x + (1 - alpha) * target
    x = x + jitter[6:]
    return (x - MEAN) / STD


def micro_batch(count: int = 24, size: tuple[int, int] = (13, 17)) -> torch.Tensor:
    pixels = np.random.default_rng(0).integers(0, 256, (count, *size, 3), dtype=np.uint8)
    pixels[0], pixels[1] = 255, 0
    return torch.from_numpy(pixels).permute(0, 3, 1, 2)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 2e-5)])
@pytest.mark.parametrize("device", ["cpu", "gpu"])
def test_equals_the_step_by_step_chain_in_all_orders(dtype: torch.dtype, tolerance: float, device: str) -> None:
    images = micro_batch()
    jitter = PAPER.draw_jitter(image_draws(0, 0, np.arange(24))[1])
    assert len({tuple(o) for o in jitter[:, :3]}) == 6, "all six orders occur"
    with nullcontext() if device == "cpu" else mapped_as_on_gpus():
        out = PAPER(images, torch.from_numpy(PAPER.maps(jitter)), dtype)
    assert out.is_contiguous(memory_format=torch.channels_last)
    for i in range(24):
        expected = step_by_step(images[i].permute(1, 2, 0).numpy(), jitter[i].astype(np.float64))
        assert np.abs(out[i].permute(1, 2, 0).numpy() - expected).max() < tolerance


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize("augments", [True, False])
@pytest.mark.parametrize("gpu", [True, False])
def test_other_types_and_layouts_are_the_fp32_result_rounded_once(
    augments: bool, layout: torch.memory_format, gpu: bool
) -> None:
    images, maps = micro_batch(), torch.from_numpy(PAPER.maps(PAPER.draw_jitter(image_draws(0, 0, np.arange(24))[1])))
    with mapped_as_on_gpus() if gpu else nullcontext():
        laid_out = replace(PAPER, memory_format=layout)
        wide, narrow = (laid_out(images, maps if augments else None, t) for t in (torch.float32, torch.bfloat16))
        assert torch.equal(wide, PAPER(images, maps if augments else None))
    assert torch.equal(narrow, wide.bfloat16())
    assert narrow.is_contiguous(memory_format=layout)


def test_evaluation_only_normalises() -> None:
    images = micro_batch()
    expected = (images.double() / 255 - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    torch.testing.assert_close(PAPER(images, None), expected.float(), rtol=1e-5, atol=1e-5)


def test_draws_have_the_papers_distributions() -> None:
    jitter = PAPER.draw_jitter(image_draws(3, 0, np.arange(60_000))[1]).astype(np.float64)
    assert jitter.shape == (60_000, JITTER_FIELDS)
    orders, counts = np.unique(jitter[:, :3], axis=0, return_counts=True)
    assert len(orders) == 6
    assert counts.min() > 9_500
    factors = jitter[:, 3:6]
    assert factors.min() == pytest.approx(0.6, abs=1e-3)
    assert factors.max() == pytest.approx(1.4, abs=1e-3)
    assert factors.mean(0) == pytest.approx([1, 1, 1], abs=0.005)
    # Lighting: covariance is V diag((0.1 · eigenvalue)^2) V^T with the eigenvectors V of fb.resnet.torch.
    vectors = np.array([[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]])
    expected = vectors @ np.diag((0.1 * np.array([0.2175, 0.0188, 0.0045])) ** 2) @ vectors.T
    assert np.cov(jitter[:, 6:].T) == pytest.approx(expected, rel=0.03)
    assert jitter[:, 6:].mean(0) == pytest.approx([0, 0, 0], abs=3e-4)


def test_colours_are_computed_outside_autocast() -> None:
    """bf16 arithmetic would be wrong by up to 0.05: colours are computed in fp32, and rounded once for the network."""
    from resnext_train.compute.precision import Precision
    from resnext_train.config import SgdSection
    from resnext_train.data.image_batch import ImageBatch
    from resnext_train.distributed.dist_context import DistContext
    from resnext_train.distributed.rank import Rank
    from resnext_train.training.optimizer import build_optimizer

    seen: list[torch.Tensor] = []

    class Network(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = torch.nn.Linear(3, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.append(x)
            logits: torch.Tensor = self.fc(x.mean((2, 3)))
            return logits

    drawn = PAPER.draw_maps(image_draws(0, 0, np.arange(24))[1])
    assert drawn is not None
    maps = torch.from_numpy(drawn)
    block = ImageBatch(micro_batch(), torch.arange(24) % 4, maps)
    context, bf16, model = DistContext(Rank(), torch.device("cpu")), Precision("bf16", "cpu"), Network()
    step = train_step(
        model, build_optimizer(SgdSection(), model), context, micro_batches=1, colors=PAPER, precision="bf16"
    )
    step(iter([block]), 0, 24, lr=0.1)
    evaluated(model, [block], PAPER, bf16, context)
    assert torch.equal(seen[0], PAPER(block.images, maps).bfloat16())
    assert torch.equal(seen[1], PAPER(block.images, None).bfloat16())


def test_no_strength_is_the_identity() -> None:
    plain = ColorTransform(0, 0, 0, 0, MEAN, STD)
    draws = image_draws(0, 0, np.arange(24))[1]
    assert plain.draw_maps(draws) is None
    maps = torch.from_numpy(plain.maps(plain.draw_jitter(draws)))
    torch.testing.assert_close(plain(micro_batch(), maps), plain(micro_batch(), None), rtol=1e-5, atol=1e-5)


def test_nothing_is_clamped() -> None:
    jitter = np.array([[0, 1, 2, 1.4, 1.4, 1.4, 0, 0, 0]])
    out = PAPER(micro_batch(2)[:1], torch.from_numpy(PAPER.maps(jitter)))
    white = (1 - torch.tensor(MEAN)) / torch.tensor(STD)
    assert (out.amax((0, 2, 3)) > white).all()
