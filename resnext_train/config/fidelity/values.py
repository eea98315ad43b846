"""Values of recipes and references: whether two mean the same, and how they are shown. Imports no torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from resnext_train.config.fidelity.references import Value
from resnext_train.config.value_types import amount_and_unit, is_duration

Values = Mapping[str, Value]
"""By recipe key, such as train.epochs, and by point of the code, such as code.precision."""

Epochs = tuple[int | None, int | None]
"""Steps of an epoch here and there, where they are known."""


def same(ours: Value, theirs: Value, epochs: Epochs = (None, None)) -> bool:
    """Return whether two values mean the same; durations in epochs and in steps may differ by 0.5 %."""
    if isinstance(ours, list) and isinstance(theirs, list):
        return len(ours) == len(theirs) and all(same(o, t, epochs) for o, t in zip(ours, theirs, strict=True))
    if isinstance(ours, bool) or isinstance(theirs, bool):
        return ours is theirs
    if isinstance(ours, (int, float)) and isinstance(theirs, (int, float)):
        return math.isclose(ours, theirs, rel_tol=1e-5)
    if is_duration(ours) and is_duration(theirs):
        return _same_duration(ours, theirs, epochs)
    return ours == theirs


def _same_duration(ours: Any, theirs: Any, epochs: Epochs) -> bool:
    (ours, unit), (theirs, their_unit) = amount_and_unit(ours), amount_and_unit(theirs)
    if unit == their_unit:
        return same(ours, theirs)
    per_epoch = epochs[0] if unit == "steps" else epochs[1]
    steps, whole = (ours, theirs) if unit == "steps" else (theirs, ours)
    return per_epoch is not None and math.isclose(steps, whole * per_epoch, rel_tol=5e-3)


def value_text(value: Value) -> str:
    """Return a value as a list shows it."""
    if isinstance(value, list):
        return f"[{', '.join(map(value_text, value))}]"
    if value is None or isinstance(value, bool):
        return {None: "none", True: "yes", False: "no"}[value]
    return f"{value:.6g}" if isinstance(value, float) else str(value)
