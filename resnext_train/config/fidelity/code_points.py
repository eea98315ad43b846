"""What our code does in points that no recipe key says, for a comparison with references. Imports no torch.

Each value is a constant that the code itself takes, or words. `tests/unit/config/test_code_points.py` shows on the
code's behaviour that they are true; of mixes, averages, BN statistics and RMSProp the tests of these parts do.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from resnext_train.config.fidelity.references import Value
from resnext_train.config.fixed_choices import (
    ANTIALIAS,
    ATTEMPTS,
    CLASSIFIER_BIAS,
    GRAY,
    LIGHTING_EIGENVALUES,
    LIGHTING_EIGENVECTORS,
)
from resnext_train.config.recipe import Recipe


@dataclass(frozen=True)
class RunFacts:
    """What only a run knows."""

    precision: Literal["fp32", "bf16", "fp16"] | None = None
    """What train.precision is on its device."""
    storage: Literal["folder", "exact", "resized", "raw", "memory"] | None = None
    """How its training images are stored: as files, in a pack of one of three tiers, or in memory."""
    storage_text: str = ""
    """The same in words."""
    images: int | None = None
    """Training images."""


NO_FACTS = RunFacts()


@dataclass(frozen=True)
class CodePoint:
    """A point of the code."""

    label: str
    """What it is called in a list."""
    ours: Callable[[Recipe, RunFacts], Value]
    remark: str = ""
    """What else is to be known of it."""


def _fixed(label: str, value: Value, remark: str = "") -> CodePoint:
    return CodePoint(label, lambda recipe, facts: value, remark)


def _images(recipe: Recipe, facts: RunFacts) -> Value:
    lossy = facts.storage in ("resized", "raw")
    return facts.storage_text if lossy else "whole"


def _precision(recipe: Recipe, facts: RunFacts) -> Value:
    known = facts.precision or recipe.train.precision
    return "auto: bf16, or else fp16, on GPUs" if known == "auto" else known


def _fallback(recipe: Recipe, facts: RunFacts) -> Value:
    log = getattr(recipe.augment, "aspect_law", None) == "log"
    return "the largest box of an allowed aspect" if log else "the largest square, cut and then resized"


def _bottleneck_stride(recipe: Recipe, facts: RunFacts) -> Value:
    return "3×3" if has_bottlenecks(recipe) else None


def has_bottlenecks(recipe: Recipe) -> bool:
    """Return whether the network is a ResNet of three-layer blocks: one of 50 and more layers on ImageNet."""
    named = re.match(r"(?:preact_)?resne(x?)t(\d+)", recipe.model.arch)
    if named is None:
        return False
    return named[1] == "x" or (recipe.model.depth or int(named[2])) in (50, 101, 152, 200)


CODE_POINTS: dict[str, CodePoint] = {
    "images": CodePoint("images", _images),
    "decode_orientation": _fixed("EXIF orientation", "ignored"),
    "crop_attempts": _fixed("boxes tried", ATTEMPTS),
    "crop_position": _fixed("places of a box", "all"),
    "crop_order": _fixed("training crop", "cut, then resized"),
    "crop_fallback": CodePoint("crop after ten attempts", _fallback),
    "resize_antialias": _fixed("resize antialiased", ANTIALIAS),
    "resize_alignment": _fixed("resize aligns", "the edges of both images"),
    "resize_rounding": _fixed("levels after a resize", "whole, 0 to 255"),
    "pad_fill": _fixed("padding", "the mean colour, rounded to whole levels"),
    "jitter_order": _fixed("order of colour jitter", "random"),
    "brightness": _fixed("brightness", "multiplied"),
    "hue": _fixed("hue jitter", "none"),
    "colours_clamped": _fixed("colours clamped", False),
    "gray": _fixed("weights of gray", list(GRAY)),
    "lighting_eigenvalues": _fixed("lighting's eigenvalues", list(LIGHTING_EIGENVALUES)),
    "lighting_eigenvectors": _fixed("lighting's eigenvectors", [list(row) for row in LIGHTING_EIGENVECTORS]),
    "mean_of": _fixed("mean subtracted", "of each channel"),
    "std_divides": _fixed("divided by std", True),
    "mix_partner": _fixed("partner in a mix", "the image before"),
    "bottleneck_stride": CodePoint("stride of bottlenecks", _bottleneck_stride),
    "classifier_weights": _fixed("classifier's weights", "U(±1/√inputs)"),
    "classifier_bias": _fixed("classifier's bias", CLASSIFIER_BIAS),
    "bn_running": _fixed("BN running statistics", "mean over the micro-batches"),
    "decay_exempt": _fixed("no weight decay on", "all vectors"),
    "rmsprop_epsilon": _fixed("RMSProp's epsilon", "beside the root"),
    "rmsprop_start": _fixed("RMSProp's squares from", 0),
    "lr_changes": _fixed("learning rate changes", "each step"),
    "cosine_start": _fixed("cosine begins", "after the warm-up"),
    "last_epochs": _fixed("epochs after the cosine", 0),
    "last_batch_filled": _fixed("last batch filled up", False),
    "ema_steps": _fixed("average's steps", "counted over the run"),
    "precision": CodePoint("precision", _precision, "here weights, BN statistics, classifier and loss are fp32"),
    "loss_scale": _fixed("loss scale", "dynamic"),
    "eval_order": _fixed("evaluation crop", "resized, then cut"),
    "eval_center": _fixed("half pixel of the centre", "rounded to even"),
}
"""By name, in the order in which they are listed."""
