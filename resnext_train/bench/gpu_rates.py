"""Images per second that hosts of eight GPUs train on, and the cores that feed them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

CROP = 224
"""Height and width in pixels of the images in the figures below."""

NETWORKS = ("ResNet-50", "ResNeXt-50 32×4d", "ResNeXt-101 32×4d")

APPETITE: dict[str, tuple[int, int, int]] = {
    "8 × V100-16G": (8_300, 6_800, 4_100),
    "8 × A100-80G": (16_600, 13_700, 7_900),
    "8 × H100 (tuned, upper bound)": (55_000, 45_000, 26_000),
}
"""Images/s in mixed precision by host, for each of NETWORKS: published figures and estimates from them."""


@dataclass(frozen=True)
class Need:
    """The need of one host with one network."""

    host: str
    network: str
    images_per_s: int
    cores: dict[str, int]
    """Cores like this machine's that feed it, by tier."""
    fed_by: tuple[str, ...]
    """Tiers with which this machine feeds it."""


def cores_for(images_per_s: float, rate: float) -> int:
    """Return the cores needed for `images_per_s` at `rate` images/s per core."""
    return math.ceil(images_per_s / rate)


def needs(per_core: Mapping[str, float], in_all: Mapping[str, float]) -> tuple[Need, ...]:
    """Return the need of every host and network, given images/s per loader core and of this machine by tier."""
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
