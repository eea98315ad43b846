"""How many images per second hosts of eight GPUs take in training, and what it takes to feed them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

CROP = 224
"""Pixels: height and width of the images that the figures below are for."""

NETWORKS = ("ResNet-50", "ResNeXt-50 32×4d", "ResNeXt-101 32×4d")

APPETITE: dict[str, tuple[int, int, int]] = {
    "8 × V100-16G": (8_300, 6_800, 4_100),
    "8 × A100-80G": (16_600, 13_700, 7_900),
    "8 × H100 (tuned, upper bound)": (55_000, 45_000, 26_000),
}
"""Images/s in mixed precision, by host, for each of NETWORKS: published figures and estimates made from
them, not measured here."""


@dataclass(frozen=True)
class Need:
    """What one host takes with one network."""

    host: str
    network: str
    images_per_s: int
    cores: dict[str, int]
    """Loader cores of this machine's kind that feed it, by tier."""
    fed_by: tuple[str, ...]
    """Tiers by which this machine feeds it as it is."""


def cores_for(images_per_s: float, rate: float) -> int:
    """Cores that are needed for so many images/s at a core's `rate`."""
    return math.ceil(images_per_s / rate)


def needs(per_core: Mapping[str, float], in_all: Mapping[str, float]) -> tuple[Need, ...]:
    """Of every host and network, from images/s of a loader core and of this machine, by tier."""
    return tuple(
        Need(
            host,
            network,
            images,
            {tier: cores_for(images, rate) for tier, rate in per_core.items()},
            tuple(tier for tier, rate in in_all.items() if rate >= images),
        )
        for host, row in APPETITE.items()
        for network, images in zip(NETWORKS, row, strict=True)
    )
