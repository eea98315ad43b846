"""What was measured, and what follows from it; all of it goes into the JSON file as it is here."""

from __future__ import annotations

from dataclasses import dataclass

from resnext_train.bench.bench_images import Measured
from resnext_train.bench.gpu_rates import Need
from resnext_train.bench.interleaved_timing import Rate
from resnext_train.bench.reference_pipelines import IO_COLOUR, PILLOW, PILLOW_COLOUR

STAGES = ("read", "decode", "resize", "colour", "hand_over")


@dataclass(frozen=True)
class PerCore:
    """One tier in one process on one core."""

    uint8: Rate
    """Groups as they are handed over."""
    normalised: Rate
    """The same with the colour step, as normalised floats."""
    stages: dict[str, float]
    """Median microseconds per image in each of STAGES; the hand-over is on top of the others, on both sides of it."""
    loader_core: float
    """uint8 images/s of a core that also hands them over."""
    bytes_per_image: float | None
    """None: in memory."""


def with_hand_over(rate: float, hand_over: float) -> float:
    """Images/s of a core that makes `rate` and takes `hand_over` microseconds more for each."""
    return 1 / (1 / rate + max(0.0, hand_over) / 1e6)


@dataclass(frozen=True)
class InAll:
    """One tier through the loader, as training reads it."""

    rate: Rate
    one_process: Rate | None
    """With one loader process; None where there are no more than that anyway."""
    scaling: float | None
    """The rate as a multiple of that."""


@dataclass(frozen=True)
class References:
    """The reference pipelines, measured in turns with ours."""

    per_core: dict[str, Rate]
    in_all: dict[str, Rate]
    ratios_per_core: dict[str, dict[str, float]]
    """By tier and reference, ours over theirs (medians): uint8 or, against a reference with colour, floats."""
    ratios_in_all: dict[str, dict[str, float]]
    """The same through loader processes; ours are uint8, whose colours the device changes."""


@dataclass(frozen=True)
class Result:
    """All of it."""

    measured: Measured
    workers: int
    """Loader processes."""
    cores: int
    """Cores that this process may use."""
    pinned_core: int | None
    """The core on which rates per core were measured; None: the system cannot keep a process on one."""
    per_core: dict[str, PerCore]
    in_all: dict[str, InAll]
    references: References | None
    gpus: tuple[Need, ...]
    notes: tuple[str, ...]


def compare(
    per_core: dict[str, PerCore], in_all: dict[str, InAll], core_rates: dict[str, Rate], all_rates: dict[str, Rate]
) -> References:
    """Ours over the references, like for like as far as that goes."""
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
