"""Types of a recipe's values, and the base class of its sections."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, WithJsonSchema

_DURATION = re.compile(r"(\d+(?:\.\d+)?) (epoch|step)s?")

_LONGEST = 1e9
"""Largest duration; more epochs or steps are surely a mistake."""


def _amount(value: float | str) -> float:
    return float(value.split(" ")[0]) if isinstance(value, str) else value


def _check_duration(value: float | str) -> float | str:
    if isinstance(value, str) and not _DURATION.fullmatch(value):
        raise ValueError("a duration is a number of epochs, '5 epochs' or '500 steps'")
    if not 0 <= _amount(value) <= _LONGEST:
        raise ValueError(f"a duration is from 0 to {_LONGEST:g}")
    return value


Duration = Annotated[
    float | str,
    AfterValidator(_check_duration),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "number", "minimum": 0, "maximum": _LONGEST},
                {"type": "string", "pattern": f"^{_DURATION.pattern}$"},
            ]
        }
    ),
]
"""A number of epochs, or "N epochs", or "N steps"."""


def _check_above_zero(value: float | str) -> float | str:
    if _amount(value) == 0:
        raise ValueError("must be longer than nothing")
    return value


PositiveDuration = Annotated[Duration, AfterValidator(_check_above_zero)]
"""A duration above zero."""


def is_duration(value: object) -> bool:
    """Return whether a value is a number of epochs, or a text that states a duration."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return is_number or (isinstance(value, str) and _DURATION.fullmatch(value) is not None)


def amount_and_unit(duration: float | str) -> tuple[float, Literal["epochs", "steps"]]:
    """Return a duration as a number of epochs or of steps."""
    if not isinstance(duration, str):
        return duration, "epochs"
    return _amount(duration), "steps" if "step" in duration else "epochs"


def duration_in_steps(duration: float | str, steps_per_epoch: int) -> int:
    """Return the optimizer steps in `duration`, rounded. Durations become steps only here."""
    amount, unit = amount_and_unit(duration)
    return round(amount if unit == "steps" else amount * steps_per_epoch)


class Section(BaseModel):
    """Base of all sections: no unknown keys, no silent conversion, frozen."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


_LARGEST = 1e30
"""Largest factor or threshold: float32, in which networks compute, ends at 3e38, and values are multiplied."""

Positive = Annotated[int, Field(gt=0, le=1_000_000_000)]
"""Steps or epochs."""
Natural = Annotated[int, Field(ge=0, le=1_000_000_000)]
"""How often something may happen, or is kept."""
Pixels = Annotated[int, Field(gt=0, le=10_000)]
"""Side of a square image; of 10,000 by 10,000 pixels the largest images are that are read."""
Images = Annotated[int, Field(gt=0, le=10_000_000)]
"""Synthetic images of a split, whose labels are all held in memory; ImageNet has 1.3 million."""
BatchSize = Annotated[int, Field(gt=0, le=1_000_000)]
Classes = Annotated[int, Field(gt=0, le=100_000)]
Workers = Annotated[int, Field(ge=0, le=1024)]
"""Processes of one host."""
Channels = Annotated[int, Field(gt=0, le=100_000)]
Layers = Annotated[int, Field(gt=0, le=10_000)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
Minutes = Annotated[float, Field(gt=0, le=1_000_000)]
"""Up to two years: timers overflow somewhere beyond."""
Fraction = Annotated[float, Field(ge=0, le=1)]
NonNegative = Annotated[float, Field(ge=0, le=_LARGEST)]
_Finite = Annotated[float, Field(ge=-_LARGEST, le=_LARGEST)]
Triple = tuple[_Finite, _Finite, _Finite]
AboveZero = Annotated[float, Field(gt=0, le=_LARGEST)]
PositiveTriple = tuple[AboveZero, AboveZero, AboveZero]


def _check_range(value: tuple[float, float]) -> tuple[float, float]:
    if not value[0] <= value[1]:
        raise ValueError("must be [low, high] with low <= high")
    return value


Share = Annotated[float, Field(gt=0, le=1)]
ShareRange = Annotated[tuple[Share, Share], AfterValidator(_check_range)]
"""Lowest and highest fraction of something."""
RatioRange = Annotated[tuple[AboveZero, AboveZero], AfterValidator(_check_range)]
"""Lowest and highest ratio."""
