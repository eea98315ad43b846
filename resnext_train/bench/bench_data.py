"""Run `resnext-bench data`: find the images, pack a sample, and measure."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from resnext_train.bench import TIERS
from resnext_train.bench.image_sample import NO_JPEGTRAN, evenly, in_tiers
from resnext_train.bench.interleaved_timing import in_turns, microseconds, rate_of
from resnext_train.bench.timed_pipelines import colour_microseconds, reference_pipelines, timed, training_pipeline
from resnext_train.config import FolderData, Recipe
from resnext_train.data.build_sources import build_train, split_folder
from resnext_train.data.loader_workers import check_shared_memory, usable_cores, worker_count, worker_deaths_explained
from resnext_train.errors import InputError

Result = dict[str, Any]
"""All measurements, as `--json` writes them:

measured         the images: `where` ("": in memory), mean size and `crop` in pixels, `group`: images of a micro-batch
workers          loader processes; beside them `cores`, which may be used
rates            images/s by tier and reference: of `one` loader process, and of `all`
microseconds     median time per image by tier: read, decode and resize in one loader process, colour on one core
with_colours     images/s by tier, of one loader process that does the colours, too
bytes_per_image  by tier; None: in memory
ratios           our medians over those of each reference, by tier: `one`, `with_colours`, and `all`
notes            what could not be measured
"""


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
    workers, micro_batches = worker_count(data.workers, local_world_size=1), -(-images // micro_batch)
    bytes_per_pixel = 12 if baseline else 3  # the references make floats
    check_shared_memory(bytes_per_pixel * micro_batch * recipe.augment.size**2, max(1, workers))
    skip = isinstance(data, FolderData) and data.on_bad_image == "skip"
    sample, unreadable, (height, width) = evenly(source, images, skip)
    references = reference_pipelines(recipe, sample) if baseline else {}
    with tempfile.TemporaryDirectory(prefix="resnext-bench-") as scratch, worker_deaths_explained():
        stored = in_tiers(sample, Path(where), tiers or TIERS, Path(scratch))
        ours = {tier: training_pipeline(recipe, s.images) for tier, s in stored.items()}
        pipelines = ours | references
        runners = {(name, n): timed(p, n, micro_batches) for name, p in pipelines.items() for n in {1, workers}}
        laps = in_turns("measuring", runners, rounds)
        colour = colour_microseconds(recipe, next(iter(ours.values())))
    rates = {name: {"one": rate_of(laps[name, 1]), "all": rate_of(laps[name, workers])} for name in pipelines}
    medians = {name: {scope: rate["median"] for scope, rate in of_name.items()} for name, of_name in rates.items()}
    with_colours = {tier: 1 / (1 / medians[tier]["one"] + colour / 1e6) for tier in ours}
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
            "images": micro_batches * micro_batch,
            "group": micro_batch,
            "rounds": rounds,
        },
        "workers": workers,
        "cores": usable_cores(),
        "rates": rates,
        "microseconds": {
            tier: {s: microseconds(laps[tier, 1], s) for s in ("read", "decode", "resize")} | {"colour": colour}
            for tier in ours
        },
        "with_colours": with_colours,
        "bytes_per_image": {tier: s.bytes_per_image for tier, s in stored.items()},
        "ratios": {
            name: {
                "one": {tier: medians[tier]["one"] / medians[name]["one"] for tier in ours},
                "with_colours": {tier: with_colours[tier] / medians[name]["one"] for tier in ours},
                "all": {tier: medians[tier]["all"] / medians[name]["all"] for tier in ours},
            }
            for name in references
        },
        "notes": [NO_JPEGTRAN] * no_jpegtran,
    }


def _check_options(kind: str, where: str, tiers: list[str], baseline: bool) -> None:
    if kind == "folder":
        return
    what = "the recipe's images are in memory" if kind == "memory" else f"{where} is a pack of tier {kind}"
    if tiers and tiers != [kind]:
        raise InputError(f"--tiers is for a folder of images, and {what}, which is measured alone; leave it out")
    if baseline:
        raise InputError(f"--baseline needs images as files, and {what}; give a folder of images by --data")
