"""Operations and their strengths against torchvision's and timm's, on Pillow's images, bit for bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from torchvision import transforms
from torchvision.transforms.autoaugment import _apply_op

from resnext_train.data.transforms.auto_augment import (
    AugmentPolicy,
    RandAugmentPolicy,
    TimmRandAugmentPolicy,
    TrivialAugmentWidePolicy,
)
from resnext_train.data.transforms.image_operations import Resample, Sampling, translate_x, translate_y
from resnext_train.data.transforms.random_draws import OperationDraws

FILL = (124, 116, 104)


def photo(size: int, contrast: float = 1.0) -> NDArray[np.uint8]:
    """Smooth colours and some noise; with `contrast` above 1, also black and white areas, below it none."""
    rng = np.random.default_rng(size)
    coarse = Image.fromarray(rng.integers(0, 256, (4, 5, 3), dtype=np.uint8)).resize((size, size))
    levels = contrast * (np.asarray(coarse) - 128.0) + rng.normal(128, 12, (size, size, 3))
    return np.asarray(levels.clip(0, 255).astype(np.uint8))


def flat(size: int) -> NDArray[np.uint8]:
    return np.full((size, size, 3), (7, 200, 255), np.uint8)


IMAGES = [photo(37), photo(24, 0.3), photo(64, 2.0), flat(16), photo(2), photo(1)]


def draws(number: int, of: int, bins: float = 0.0, negative: bool = False, resample: float = 0.0) -> OperationDraws:
    """The draws of one operation, which make a policy choose number `number` of its `of`."""
    magnitude = np.array([[[bins, 0.0]]])  # as a normal number: 0
    one = np.ones((1, 1))
    return OperationDraws((number + 0.5) / of * one, 0.0 * one, magnitude, (not negative) * 0.9 * one, resample * one)


def done(policy: AugmentPolicy, image: NDArray[np.uint8], drawn: OperationDraws) -> NDArray[np.uint8]:
    batch = image[None].copy()
    policy(batch, drawn)
    return np.asarray(batch[0])


def check_torchvision(policy: AugmentPolicy, space: Any, image: NDArray[np.uint8], bin_: int, resample: str) -> None:
    """Compare all of torchvision's operations at magnitude `bin_`, with both signs, on an image."""
    pillow, mode = Image.fromarray(image), transforms.InterpolationMode(resample)
    for number, (name, (magnitudes, signed)) in enumerate(space.items()):
        magnitude = float(magnitudes[bin_].item()) if magnitudes.ndim else 0.0
        for negative in (False, True):
            expected = _apply_op(pillow, name, -magnitude if signed and negative else magnitude, mode, None)
            ours = done(policy, image, draws(number, len(space), (bin_ + 0.5) / 31, negative))
            assert np.array_equal(ours, np.asarray(expected)), (name, bin_, negative, resample)


@pytest.mark.parametrize("resample", ["nearest", "bilinear", "bicubic"])
def test_trivial_augment_wide_is_torchvisions(resample: Resample) -> None:
    space = transforms.TrivialAugmentWide()._augmentation_space(31)
    policy = TrivialAugmentWidePolicy(1, resample)
    for bin_ in range(31):
        check_torchvision(policy, space, IMAGES[0], bin_, resample)
    for image in IMAGES[1:]:
        check_torchvision(policy, space, image, 19, resample)


@pytest.mark.parametrize("magnitude", [0, 9, 30])
def test_rand_augment_is_torchvisions(magnitude: int) -> None:
    for image in IMAGES:
        space = transforms.RandAugment()._augmentation_space(31, image.shape[:2])
        for resample in ("nearest", "bilinear", "bicubic"):
            check_torchvision(RandAugmentPolicy(1, magnitude, resample), space, image, magnitude, resample)  # type: ignore[arg-type]


@pytest.mark.parametrize("increasing", [True, False])
def test_timm_rand_augment_is_timms(increasing: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    timm = pytest.importorskip("timm.data.auto_augment")
    names = timm.rand_augment_choices("", increasing)
    hparams = {"img_mean": FILL}
    for negative in (False, True):
        monkeypatch.setattr(timm.random, "random", lambda negative=negative: 0.9 if negative else 0.1)
        for magnitude in (0.0, 2.5, 4.999, 7.31, 10.0):
            for mode, resample in (("bilinear", 0.1), ("bicubic", 0.9)):
                policy = TimmRandAugmentPolicy(1, magnitude, 0.5, increasing, 1.0, "random", FILL)
                how = {"fillcolor": FILL, "resample": Image.Resampling[mode.upper()]}
                for number, name in enumerate(names):
                    strengths = timm.LEVEL_TO_ARG[name](magnitude, hparams) if timm.LEVEL_TO_ARG[name] else ()
                    for image in IMAGES[:2]:
                        ours = done(policy, image, draws(number, len(names), 0.0, negative, resample))
                        if name.startswith("Posterize") and strengths == (0,):
                            assert not ours.any(), "black, as before Pillow 13, which refuses"
                            continue
                        expected = timm.NAME_TO_OP[name](Image.fromarray(image), *strengths, **how)
                        assert np.array_equal(ours, np.asarray(expected)), (name, magnitude, negative, mode)


def test_translations_are_pillows_at_any_distance() -> None:
    """Also where a distance is all but whole, or leads out of the image."""
    pixels = photo(40)
    image = Image.fromarray(pixels)
    distances = [
        0.5,
        -0.25,
        1e-14,
        -1e-14,
        3 - 1e-15,
        -7 + 1e-15,
        17.3,
        -39.6,
        39.999,
        40.0,
        -41.0,
        300.2,
        40 * 0.09 * 5,
    ]
    modes: tuple[Resample, ...] = ("bilinear", "bicubic")
    for mode in modes:
        how: Any = {"resample": Image.Resampling[mode.upper()], "fillcolor": FILL}
        for d in distances:
            across = image.transform(image.size, Image.Transform.AFFINE, (1, 0, d, 0, 1, 0), **how)
            down = image.transform(image.size, Image.Transform.AFFINE, (1, 0, 0, 0, 1, d), **how)
            assert np.array_equal(translate_x(pixels, d, Sampling(mode, FILL)), np.asarray(across)), d
            assert np.array_equal(translate_y(pixels, d, Sampling(mode, FILL)), np.asarray(down)), d
