"""Name the stage of the input pipeline that a training run waits for, and the remedy."""

from __future__ import annotations

from typing import NamedTuple

from resnext_train.data.image_batch import LoadReport
from resnext_train.data.sources.image_source import Storage

NOTICEABLE = 0.1
"""Fraction of the time spent waiting for images above which a run reports it."""

WINDOW = 100
"""Steps over which that fraction is measured."""

_PACK = "pack the images with `resnext prepare pack --tier"
_REMEDIES = {
    ("read", "folder"): f"put them on a local disk, or {_PACK} exact` into a few large files",
    ("decode", "folder"): f"{_PACK} exact`, which decodes only what a crop shows",
    ("decode", "exact"): f"{_PACK} resized` (smaller images, lossy) or `--tier raw` (no decoding)",
    ("decode", "resized"): f"{_PACK} raw`, which needs no decoding",
    ("resize", "raw"): "put them on a faster disk if memory cannot hold them, or give the loader more cores",
    ("resize", "folder"): f"{_PACK} raw`, whose images are small already",
    ("resize", "exact"): f"{_PACK} raw`, whose images are small already",
}
_OTHERWISE = {
    "read": "put them on a faster disk",
    "decode": "give the loader more cores",
    "resize": "give the loader more cores",
    "operations": "give the loader more cores, or choose fewer or other operations in auto_augment",
}
_DOING = {
    "read": "reading",
    "decode": "decoding",
    "resize": "cropping and resizing",
    "operations": "the operations of auto_augment",
}


class Workers(NamedTuple):
    """Loader processes per training process: those started, and those that data.workers=auto would start."""

    started: int
    recommended: int


def slow_stage(stages: LoadReport, seconds: float, workers: Workers, storage: Storage) -> tuple[str, str]:
    """Return the loader's slow stage and a sentence with the remedy.

    `stages` are sums over the loader processes, `seconds` is the wall time. The stage is read, decode, resize or
    operations, or hand-over where the loader processes were idle for most of the time.
    """
    times = {
        "read": stages.read,
        "decode": stages.decode,
        "resize": stages.resize,
        "operations": stages.operations,
    }
    stage = max(times, key=lambda name: times[name])
    busy = sum(times.values())
    if workers.started and busy < 0.5 * seconds * workers.started:
        return "hand-over", "its processes were idle for most of the time: other programs may use this machine's cores"
    finding = f"it spends {100 * times[stage] / max(busy, 1e-9):.0f} % of its time on {_DOING[stage]}"
    if stage != "read" and workers.started < workers.recommended:
        return stage, f"{finding}; raise data.workers from {workers.started} to {workers.recommended}"
    return stage, f"{finding}; {_REMEDIES.get((stage, storage.kind), _OTHERWISE[stage])}"
