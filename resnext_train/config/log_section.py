"""The recipe section about logging, and how its former key is read."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, get_args

from pydantic import BeforeValidator, WithJsonSchema, model_validator

from resnext_train.config.value_types import Positive, Section

TrackerName = Literal["tensorboard", "wandb", "mlflow", "csv"]
TRACKERS: tuple[str, ...] = get_args(TrackerName)

_USUAL: tuple[TrackerName, ...] = ("tensorboard",)
_FORMER = "tensorboard"
"""The key that there was before `to`, and the tracker that it chose."""


def _as_names(value: Any) -> Any:
    """Return the names of a list or of a text such as csv or csv,wandb, each once; anything else as it is."""
    if isinstance(value, str):
        value = _split(value)
    if not isinstance(value, (list, tuple)):
        return value
    for name in value:
        if not isinstance(name, str) or name not in TRACKERS:
            near = difflib.get_close_matches(str(name), TRACKERS, n=1, cutoff=0.5)
            meant = f" (did you mean {near[0]}?)" if near else ""
            raise ValueError(f"takes any of {', '.join(TRACKERS)}{meant}, or [] for none")
    return tuple(dict.fromkeys(value))


def _split(text: str) -> list[str]:
    return [name.strip() for name in text.split(",")]


TrackerNames = Annotated[
    tuple[TrackerName, ...],
    BeforeValidator(_as_names),
    WithJsonSchema(
        {"anyOf": [{"enum": list(TRACKERS)}, {"type": "array", "items": {"enum": list(TRACKERS)}}]},
    ),
]
"""Names of trackers; one alone needs no brackets."""


class LogSection(Section):
    """Logging."""

    every: Positive = 20
    """Steps between log lines; the host waits for the device only then."""
    to: TrackerNames = _USUAL
    """Trackers that are written in addition to log.jsonl. tensorboard: curves, pictures and histograms in the run
    folder. csv: metrics.csv there. wandb: Weights & Biases. mlflow: MLflow."""

    @model_validator(mode="before")
    @classmethod
    def _read_former(cls, values: Any) -> Any:
        if not isinstance(values, Mapping) or _FORMER not in values:
            return values
        today = without_former(values, values)
        if _FORMER not in today:
            return today
        if type(values[_FORMER]) is not bool:
            raise ValueError(
                f"log.{_FORMER} should be true or false; it was the key before log.to, which names trackers"
            )
        raise ValueError(f"log.{_FORMER} contradicts log.to, which has taken its place; remove log.{_FORMER}")


def without_former(values: Mapping[str, Any], below: Mapping[str, Any]) -> dict[str, Any]:
    """Return the `values` of a log section with its former key as a name in `to`, or not in it.

    Where the values have no `to`, it is that of the weaker section `below`, or the usual one. A former key that is no
    boolean, or contradicts the `to` beside it, stays, to be refused.
    """
    wanted = values.get(_FORMER)
    to = values.get("to", below.get("to", _USUAL))
    names = _split(to) if isinstance(to, str) else to
    if type(wanted) is not bool or not isinstance(names, Sequence):
        return dict(values)
    if "to" in values and (_FORMER in names) != wanted:
        return dict(values)
    others = [name for name in names if name != _FORMER]
    rest = {key: value for key, value in values.items() if key != _FORMER}
    return {**rest, "to": [*others, _FORMER] if wanted else others}
