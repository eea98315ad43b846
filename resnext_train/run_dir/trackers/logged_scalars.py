"""The numbers of an event under the names that they have in all trackers: train/*, val/*, NAME/* of eval.also."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from resnext_train.run_dir.sink import Event

_TRAIN = {
    "loss": "loss",
    "top1": "accuracy",
    "lr": "lr",
    "images_per_s": "images_per_s",
    "data_wait": "data_wait",
    "memory_mb": "memory_mb",
    "flops_per_s": "flops_per_s",
    "loss_scale": "loss_scale",
}
"""Keys of a step event, and their names."""

TRAIN_NAMES = tuple(f"train/{name}" for name in _TRAIN.values())


def scalars_of(event: Event) -> dict[str, float]:
    """Return the finite numbers of a step or an epoch; of other events, none.

    Those of an average of the weights are beside the network's own: val/ema_accuracy.
    """
    scalars: dict[str, Any] = {}
    if event["event"] == "step":
        scalars = {f"train/{name}": event.get(key) for key, name in _TRAIN.items()}
    elif event["event"] == "epoch" and event.get("val_count"):
        scalars = _of_counts("val/", {key: event.get(f"val_{key}") for key in _COUNTS})
        for name, of_set in (event.get("also") or {}).items():
            scalars |= _of_counts(f"{name}/", of_set)
        if ema := event.get("ema"):
            for name, of_set in {"val": ema, **(ema.get("also") or {})}.items():
                scalars |= _of_counts(f"{name}/ema_", of_set)
    return {name: value for name, value in scalars.items() if isinstance(value, (int, float)) and math.isfinite(value)}


_COUNTS = ("count", "loss", "top1_correct", "top5_correct")


def _of_counts(begin: str, counts: Mapping[str, Any]) -> dict[str, Any]:
    return {
        f"{begin}loss": counts["loss"],
        f"{begin}accuracy": 100 * counts["top1_correct"] / counts["count"],
        f"{begin}top5_accuracy": 100 * counts["top5_correct"] / counts["count"],
    }
