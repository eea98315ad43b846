"""Run `resnext-bench data`: find the images, pack a sample, and measure."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from resnext_train.bench import TIERS
from resnext_train.bench.image_sample import NO_JPEGTRAN, Passes, evenly, in_tiers
from resnext_train.bench.interleaved_timing import Lap, Runner, in_turns, microseconds, on_one_core, one_thread, rate_of
from resnext_train.bench.timed_pipelines import ReadyBatches, ReferenceBatches, build_references, timed, train_batches
from resnext_train.config import FolderData, Recipe
from resnext_train.data.batch_datasets import TrainBatches
from resnext_train.data.build_sources import build_train, split_folder
from resnext_train.data.image_batch import ImageBatch
from resnext_train.data.loader_workers import check_shared_memory, usable_cores, worker_count, worker_deaths_explained
from resnext_train.errors import InputError

NO_AFFINITY = "this system cannot pin a process to a core: rates per core are those of one process"

COMPARED = {"pillow": "uint8", "pillow+colour": "float", "io+colour": "float"}
"""The references that ours are divided by, each with the one of our rates per core that is most like it."""

Result = dict[str, Any]
"""All measurements, as `--json` writes them:

measured     the images: `where` ("": in memory), mean size and `crop` in pixels, `group`: images of a micro-batch
workers      loader processes; beside them `cores`, which may be used, and `pinned_core`, of the rates per core, or None
per_core     of one process by tier: rates of `uint8` and `normalised` micro-batches; `stages`: median µs per image, of
             which the hand-over comes on top, for both processes; `loader_core`: uint8 images/s with the hand-over
in_all       through the loader by tier: `rate` of uint8 micro-batches; `one_process`: with one, where there are more
references   rates by reference; by tier, ours over theirs (medians), in all always our uint8; or None
notes        what could not be measured
"""

Laps = dict[tuple[str, str], list[Lap]]
"""By tier or reference, and what was timed: uint8 or float micro-batches in this process; all or one loader process."""


def measure(recipe: Recipe, images: int, rounds: int, tiers: list[str], baseline: bool) -> Result:
    """Measure the input pipeline on the training images of `recipe`: a folder in `tiers`, or in all if none is named.

    `images` is the least number of images in a pass, and the largest number of different images.

    Raises:
        InputError: missing or unreadable images, options that do not fit them, or too little space.
    """
    source, data, micro_batch = build_train(recipe.data), recipe.data, recipe.train.micro_batch
    kind = source.storage.kind
    where = str(split_folder(data, "train")) if isinstance(data, FolderData) and kind != "memory" else ""
    _check_options(kind, where, tiers, baseline)
    references = build_references(recipe) if baseline else {}
    workers = worker_count(data.workers, local_world_size=1)
    bytes_per_pixel = 12 if baseline else 3  # the references make floats
    check_shared_memory(bytes_per_pixel * micro_batch * recipe.augment.size**2, workers)
    skip = isinstance(data, FolderData) and data.on_bad_image == "skip"
    sample, unreadable, (height, width) = evenly(source, images, skip)
    passes = Passes(len(sample), micro_batch, -(-images // micro_batch), recipe.train.seed)
    with tempfile.TemporaryDirectory(prefix="resnext-bench-") as scratch, one_thread(), worker_deaths_explained():
        stored = in_tiers(sample, Path(where), tiers or TIERS, Path(scratch))
        ours = {tier: train_batches(recipe, s.images) for tier, s in stored.items()}
        theirs = {name: ReferenceBatches(sample, reference) for name, reference in references.items()}
        with on_one_core() as core:
            laps = in_turns("per core", _core_runners(ours, theirs, passes, core), rounds, discarded=1)
        laps |= in_turns("in all", _loader_runners(ours, theirs, passes, workers), rounds)
    no_jpegtran = kind == "folder" and "exact" in (tiers or TIERS) and "exact" not in stored
    return {
        "measured": {
            "where": where,
            "storage": kind,
            "files": len(sample),
            "unreadable": unreadable,
            "height": height,
            "width": width,
            "crop": recipe.augment.size,
            "images": passes.images,
            "group": micro_batch,
            "rounds": rounds,
        },
        "workers": workers,
        "cores": usable_cores(),
        "pinned_core": core,
        "per_core": {
            tier: {**_per_core(laps, tier), "bytes_per_image": s.bytes_per_image} for tier, s in stored.items()
        },
        "in_all": {tier: _in_all(laps, tier) for tier in stored},
        "references": _references(laps, list(stored), list(theirs)) if baseline else None,
        "notes": [NO_JPEGTRAN] * no_jpegtran + [NO_AFFINITY] * (core is None),
    }


def _check_options(kind: str, where: str, tiers: list[str], baseline: bool) -> None:
    if kind == "folder":
        return
    what = "the recipe's images are in memory" if kind == "memory" else f"{where} is a pack of tier {kind}"
    if tiers and tiers != [kind]:
        raise InputError(f"--tiers is for a folder of images, and {what}, which is measured alone; leave it out")
    if baseline:
        raise InputError(f"--baseline needs images as files, and {what}; give a folder of images by --data")


def _core_runners(
    ours: dict[str, TrainBatches], theirs: dict[str, ReferenceBatches], passes: Passes, core: int | None
) -> dict[tuple[str, str], Runner]:
    """Time this process, and the hand-over of a finished micro-batch from a loader process on the same `core`."""
    batch = next(iter(ours.values()))[passes.micro_batches_of(0)[0]]
    assert isinstance(batch, ImageBatch)
    ready = ReadyBatches(batch, core)
    runners = {("ready", "made"): timed(ready, passes, 0), ("ready", "handed over"): timed(ready, passes, 1)}
    for tier, dataset in ours.items():
        runners[tier, "uint8"] = timed(dataset, passes, 0)
        runners[tier, "float"] = timed(dataset, passes, 0, dataset.color_transform)
    return runners | {(name, "float"): timed(dataset, passes, 0) for name, dataset in theirs.items()}


def _loader_runners(
    ours: dict[str, TrainBatches], theirs: dict[str, ReferenceBatches], passes: Passes, workers: int
) -> dict[tuple[str, str], Runner]:
    """Time all loader processes, and for ours one."""
    runners = {(name, "all"): timed(dataset, passes, workers) for name, dataset in {**ours, **theirs}.items()}
    if workers > 1:
        runners |= {(tier, "one"): timed(dataset, passes, 1) for tier, dataset in ours.items()}
    return runners


def _per_core(laps: Laps, tier: str) -> dict[str, Any]:
    uint8, normalised = laps[tier, "uint8"], laps[tier, "float"]
    stages = {stage: microseconds(uint8, stage) for stage in ("read", "decode", "resize")}
    stages["colour"] = microseconds(normalised, "colour")
    stages["hand_over"] = microseconds(laps["ready", "handed over"]) - microseconds(laps["ready", "made"])
    rate = rate_of(uint8)
    loader_core = 1 / (1 / rate["median"] + max(0.0, stages["hand_over"]) / 1e6)
    return {"uint8": rate, "normalised": rate_of(normalised), "stages": stages, "loader_core": loader_core}


def _in_all(laps: Laps, tier: str) -> dict[str, Any]:
    rate = rate_of(laps[tier, "all"])
    one = rate_of(laps[tier, "one"]) if (tier, "one") in laps else None
    return {"rate": rate, "one_process": one, "scaling": rate["median"] / one["median"] if one else None}


def _references(laps: Laps, tiers: list[str], names: list[str]) -> dict[str, Any]:
    """Return the rates of the references and our medians over theirs; in all, the device has our colours to do."""
    rates = {key: rate_of(of_key) for key, of_key in laps.items()}
    medians = {key: rate["median"] for key, rate in rates.items()}
    return {
        "per_core": {name: rates[name, "float"] for name in names},
        "in_all": {name: rates[name, "all"] for name in names},
        "ratios_per_core": {
            tier: {name: medians[tier, kind] / medians[name, "float"] for name, kind in COMPARED.items()}
            for tier in tiers
        },
        "ratios_in_all": {
            tier: {name: medians[tier, "all"] / medians[name, "all"] for name in COMPARED} for tier in tiers
        },
    }
