"""Run `resnext bench data`: find the images, pack a sample, and measure."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from resnext_train.bench import TIERS
from resnext_train.bench.image_sample import NO_JPEGTRAN, evenly, in_tiers
from resnext_train.bench.interleaved_timing import Lap, Rate, Runner, in_turns, microseconds, rate_of
from resnext_train.bench.timed_pipelines import (
    MORE_WORK,
    NO_DECODER,
    Pipeline,
    one_thread,
    reference_pipelines,
    timed,
    training_pipeline,
)
from resnext_train.config import FolderData, Recipe
from resnext_train.data.build_loaders import build_color_transform
from resnext_train.data.build_sources import build_train, split_folder
from resnext_train.data.decode.jpeg_decoder import describe_decoders
from resnext_train.data.loader_workers import check_shared_memory, worker_count, worker_deaths_explained
from resnext_train.data.transforms.color_transform import ColorTransform
from resnext_train.distributed.usable_cores import own_share, usable_cores
from resnext_train.errors import InputError

Result = dict[str, Any]
"""All measurements, as `--json` writes them:

measured         the images: `where` ("": in memory), mean size and `crop` (where crops grow, of the last epochs) in
                 pixels, `images` of a pass, or more
workers          loader processes; beside them `cores`, which may be used
rates            images/s by tier and reference: of `one` loader process, or of this one where there is none; of `all`,
                 where there are more; and of this process alone making normalised `floats`, which references do
                 always and tiers only there, with their colours
microseconds     median time per image by tier: read, decode, resize and rest of `one`, and colour of `floats`
bytes_per_image  by tier; None: in memory
jpeg             our decoders of JPEG, and why others are passed over
ratios           our medians over those of each reference, by tier: of `floats`, and of `all` or `one`
notes            what could not be measured, and what compares badly
"""


def measure(recipe: Recipe, images: int, rounds: int, tiers: list[str], baseline: bool) -> Result:
    """Measure the input pipeline on the training images of `recipe`: a folder in `tiers`, or in all if none is named.

    `images` is the least number of images in a pass, and the largest number of different images.

    Raises:
        InputError: missing or unreadable images, options that do not fit them, or too little space.
    """
    recipe = recipe.at_full_size()
    source, data = build_train(recipe.data), recipe.data
    kind = source.storage.kind
    where = str(split_folder(data, "train")) if isinstance(data, FolderData) and kind != "memory" else ""
    _check_options(kind, where, tiers, baseline)
    skip = isinstance(data, FolderData) and data.on_bad_image == "skip"
    sample, unreadable, (height, width) = evenly(source, images, skip)
    micro_batch = min(recipe.train.micro_batch, len(sample))
    references = reference_pipelines(recipe, sample, micro_batch) if baseline else {}
    workers = worker_count(data.workers, own_share())
    bytes_per_pixel = 12 if baseline else 3  # the references make floats
    check_shared_memory(bytes_per_pixel * micro_batch * recipe.augment.size**2, workers)
    with tempfile.TemporaryDirectory(prefix="resnext-bench-") as scratch, one_thread(), worker_deaths_explained():
        stored = in_tiers(sample, Path(where), tiers or TIERS, Path(scratch))
        ours = {tier: training_pipeline(recipe, s.images, micro_batch) for tier, s in stored.items()}
        runners = _runners(ours, references, workers, -(-images // micro_batch), build_color_transform(recipe))
        laps = in_turns("measuring", runners, rounds)
    rates = {
        name: {scope: rate_of(laps[name, scope]) for scope in ("one", "all", "floats") if (name, scope) in laps}
        for name in ours | references
    }
    compared = ("floats", "all" if workers > 1 else "one")
    no_decoder = baseline and "torchvision.io" not in references
    operations = recipe.auto_augment.name
    more_work = [MORE_WORK.format(operations)] if baseline and operations != "none" else []
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
            "images": min(lap.images for of_key in laps.values() for lap in of_key),
            "micro_batch": micro_batch,
            "rounds": rounds,
        },
        "workers": workers,
        "cores": usable_cores(),
        "rates": rates,
        "microseconds": {tier: _microseconds(laps[tier, "one"], laps[tier, "floats"]) for tier in ours},
        "bytes_per_image": {tier: s.bytes_per_image for tier, s in stored.items()},
        "jpeg": describe_decoders(),
        "ratios": {name: _ratios(rates, list(ours), name, compared) for name in references},
        "notes": [*[NO_JPEGTRAN] * no_jpegtran, *[NO_DECODER] * no_decoder, *more_work],
    }


def _ratios(
    rates: dict[str, dict[str, Rate]], tiers: list[str], reference: str, scopes: Iterable[str]
) -> dict[str, dict[str, float]]:
    """Return our medians over those of a reference, by scope and tier."""
    theirs = rates[reference]
    return {scope: {tier: rates[tier][scope]["median"] / theirs[scope]["median"] for tier in tiers} for scope in scopes}


def _runners(
    ours: dict[str, Pipeline], theirs: dict[str, Pipeline], workers: int, micro_batches: int, colours: ColorTransform
) -> dict[tuple[str, str], Runner]:
    """Return what is timed, by tier or reference, and scope."""
    runners = {}
    for name, pipeline in {**ours, **theirs}.items():
        runners[name, "one"] = timed(pipeline, min(1, workers), micro_batches)
        if workers > 1:
            runners[name, "all"] = timed(pipeline, workers, micro_batches)
        runners[name, "floats"] = timed(pipeline, 0, micro_batches, colours if name in ours else None)
    return runners


def _microseconds(one: list[Lap], floats: list[Lap]) -> dict[str, float]:
    stages = {stage: microseconds(one, stage) for stage in ("read", "decode", "resize")}
    rest = microseconds(one) - sum(stages.values())
    return {**stages, "rest": rest, "colour": microseconds(floats, "colour")}


def _check_options(kind: str, where: str, tiers: list[str], baseline: bool) -> None:
    if kind == "folder":
        return
    what = "the recipe's images are in memory" if kind == "memory" else f"{where} is a pack of tier {kind}"
    if tiers and tiers != [kind]:
        raise InputError(f"--tiers is for a folder of images, and {what}, which is measured alone; leave it out")
    if baseline:
        raise InputError(f"--baseline needs images as files, and {what}; give a folder of images by --data")
