"""The result of a measurement; --json writes these fields under their names here."""

from __future__ import annotations

from dataclasses import dataclass

from resnext_train.bench.bench_images import Measured
from resnext_train.bench.gpu_rates import Need
from resnext_train.bench.interleaved_timing import Rate
from resnext_train.bench.reference_pipelines import IO_COLOUR, PILLOW, PILLOW_COLOUR

STAGES = ("read", "decode", "resize", "colour", "hand_over")


@dataclass(frozen=True)
class PerCore:
    """Rates of one tier in one process on one core."""

    uint8: Rate
    """uint8 micro-batches, as loader processes hand them over."""
    normalised: Rate
    """The same after the colour transform, as normalised floats."""
    stages: dict[str, float]
    """Median microseconds per image in each of STAGES; the hand-over comes on top and counts both processes."""
    loader_core: float
    """uint8 images/s of a core that also hands them over."""
    bytes_per_image: float | None
    """Mean; None: in memory."""


def with_hand_over(rate: float, hand_over: float) -> float:
    """Return the images/s of a core at `rate` images/s with `hand_over` more microseconds per image."""
    return 1 / (1 / rate + max(0.0, hand_over) / 1e6)


@dataclass(frozen=True)
class InAll:
    """Rates of one tier through the loader, as in training."""

    rate: Rate
    one_process: Rate | None
    """Rate with one loader process; None if `rate` has at most one."""
    scaling: float | None


@dataclass(frozen=True)
class References:
    """Rates of the reference pipelines, measured in turns with ours."""

    per_core: dict[str, Rate]
    in_all: dict[str, Rate]
    ratios_per_core: dict[str, dict[str, float]]
    """Ours over theirs (medians) by tier and reference; ours are uint8, or floats against references with colour."""
    ratios_in_all: dict[str, dict[str, float]]
    """The same through loader processes; ours are always uint8, as the device transforms the colours."""


@dataclass(frozen=True)
class Result:
    """All measurements."""

    measured: Measured
    workers: int
    cores: int
    pinned_core: int | None
    """The core of the rates per core; None: the system cannot pin a process."""
    per_core: dict[str, PerCore]
    in_all: dict[str, InAll]
    references: References | None
    gpus: tuple[Need, ...]
    notes: tuple[str, ...]


def compare(
    per_core: dict[str, PerCore], in_all: dict[str, InAll], core_rates: dict[str, Rate], all_rates: dict[str, Rate]
) -> References:
    """Divide our rates by those of the most similar references."""
    return References(
        core_rates,
        all_rates,
        {
            tier: {
                PILLOW: ours.uint8.median / core_rates[PILLOW].median,
                PILLOW_COLOUR: ours.normalised.median / core_rates[PILLOW_COLOUR].median,
                IO_COLOUR: ours.normalised.median / core_rates[IO_COLOUR].median,
            }
            for tier, ours in per_core.items()
        },
        {
            tier: {name: ours.rate.median / all_rates[name].median for name in (PILLOW, PILLOW_COLOUR, IO_COLOUR)}
            for tier, ours in in_all.items()
        },
    )
