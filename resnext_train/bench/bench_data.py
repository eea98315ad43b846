"""Run `resnext-bench data`: find the images, pack a sample, measure, and compute what the rates can feed."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from resnext_train.bench import TIERS
from resnext_train.bench.bench_images import Measured, Passes, Stored, evenly, file_bytes, find_images, packed
from resnext_train.bench.bench_results import InAll, PerCore, References, Result, compare, with_hand_over
from resnext_train.bench.gpu_rates import needs
from resnext_train.bench.interleaved_timing import Rate, Runner, in_turns, microseconds, on_one_core, one_thread
from resnext_train.bench.own_pipeline import copied, handed_over, on_this_core, through_loader, train_batches
from resnext_train.bench.reference_pipelines import (
    ReferenceImages,
    build_pipelines,
    quiet,
    reference_on_this_core,
    reference_through_loader,
)
from resnext_train.config import FolderData, Recipe
from resnext_train.data.batch_datasets import TrainBatches
from resnext_train.data.build_loaders import build_color_transform
from resnext_train.data.image_batch import ImageBatch
from resnext_train.data.loader_workers import check_shared_memory, usable_cores, worker_count, worker_deaths_explained
from resnext_train.data.sources.class_subset import ImageSubset
from resnext_train.errors import InputError
from resnext_train.prepare.pack_records import Tier, find_jpegtran

FOLDER, EXACT, RESIZED, RAW = TIERS

NO_JPEGTRAN = "tier exact is left out: it needs jpegtran, which is not installed (libjpeg-turbo has it)"
NO_AFFINITY = "this system cannot pin a process to a core: rates per core are those of one process"

Rates = dict[str, Rate]


@dataclass(frozen=True)
class Options:
    """Options of a measurement."""

    images: int
    """Least number of images in a pass, and largest number of different images."""
    rounds: int
    tiers: tuple[str, ...] | None
    """Tiers to measure for a folder; None: all."""
    baseline: bool
    size: int
    """Short side in pixels, for tiers resized and raw."""
    quality: int
    """JPEG quality, for tier resized."""


def measure(recipe: Recipe, options: Options) -> Result:
    """Measure the input pipeline on the training images of `recipe`.

    Raises:
        InputError: missing or unreadable images, options that do not fit them, or too little space.
    """
    stored, where = find_images(recipe.data)
    kind = stored.source.storage.kind
    _check_options(options, kind, where)
    pipelines = build_pipelines(recipe) if options.baseline else {}
    workers = worker_count(recipe.data.workers, local_world_size=1)
    micro_batch = recipe.train.micro_batch
    bytes_per_pixel = 12 if pipelines else 3  # the references make floats
    check_shared_memory(bytes_per_pixel * micro_batch * recipe.augment.size**2, workers)
    skip = isinstance(recipe.data, FolderData) and recipe.data.on_bad_image == "skip"
    sample, unreadable, (height, width) = evenly(stored.source, options.images, skip)
    passes = Passes(len(sample), micro_batch, -(-options.images // micro_batch), recipe.train.seed)
    crop = recipe.augment.size
    measured = Measured(
        where, kind, len(sample), unreadable, height, width, crop, passes.images, micro_batch, options.rounds
    )
    with tempfile.TemporaryDirectory(prefix="resnext-bench-") as folder, one_thread(), quiet():
        if kind == FOLDER:
            tiers, notes = _tiers(sample, options, Path(folder))
        else:
            tiers, notes = {kind: Stored(sample, stored.bytes_per_image)}, []
        ours = {name: train_batches(recipe, tier.source) for name, tier in tiers.items()}
        theirs = {name: ReferenceImages(sample, pipeline) for name, pipeline in pipelines.items()}
        with worker_deaths_explained():
            with on_one_core() as core:
                per_core, core_rates = _per_core(recipe, ours, theirs, tiers, passes, options.rounds, core)
            in_all, all_rates = _in_all(ours, theirs, passes, options.rounds, workers)
    if core is None:
        notes.append(NO_AFFINITY)
    references: References | None = compare(per_core, in_all, core_rates, all_rates) if theirs else None
    gpus = needs({k: v.loader_core for k, v in per_core.items()}, {k: v.rate.median for k, v in in_all.items()})
    return Result(measured, workers, usable_cores(), core, per_core, in_all, references, gpus, tuple(notes))


def _check_options(options: Options, kind: str, where: str) -> None:
    if kind == FOLDER:
        return
    what = "the recipe's images are in memory" if kind == "memory" else f"{where} is a pack of tier {kind}"
    if options.tiers is not None and options.tiers != (kind,):
        raise InputError(f"--tiers is for a folder of images, and {what}, which is measured alone; leave it out")
    if options.baseline:
        raise InputError(f"--baseline needs images as files, and {what}; give a folder of images by --data")


def _tiers(sample: ImageSubset, options: Options, folder: Path) -> tuple[dict[str, Stored], list[str]]:
    """Return the requested tiers, packed below `folder`, and notes for the report."""
    requested, jpegtran = list(options.tiers or TIERS), find_jpegtran()
    notes: list[str] = []
    if EXACT in requested and not jpegtran:
        requested.remove(EXACT)
        notes.append(NO_JPEGTRAN)
    if not requested:
        raise InputError(f"nothing is left to measure: {NO_JPEGTRAN}")
    tiers: dict[str, Stored] = {}
    with _progress(len(sample) * len(set(requested) - {FOLDER}), "packing", "image") as advance:
        for name in requested:
            if name == FOLDER:
                tiers[name] = Stored(sample, file_bytes(sample))
                continue
            tier = {
                EXACT: Tier("exact", None, None, jpegtran),
                RESIZED: Tier("resized", options.size, options.quality, jpegtran),
                RAW: Tier("raw", options.size, None, jpegtran),
            }[name]
            tiers[name] = packed(sample, tier, folder / name, advance)
    return tiers, notes


@contextmanager
def _progress(total: int, what: str, unit: str) -> Iterator[Callable[[int], object]]:
    """Show a progress bar on stderr; if that is no terminal, print a line every 30 s."""
    terminal = sys.stderr.isatty()
    with tqdm(total=total, desc=what, unit=unit, mininterval=0.2 if terminal else 30.0, leave=not terminal) as bar:
        yield bar.update


def _laps(runners: dict[tuple[str, str], Runner], rounds: int, what: str, discarded: int) -> dict[tuple[str, str], Any]:
    with _progress(len(runners) * (rounds + discarded), what, "pass") as advance:
        return in_turns(runners, rounds, lambda: advance(1), discarded)


def _per_core(
    recipe: Recipe,
    ours: dict[str, TrainBatches],
    theirs: dict[str, ReferenceImages],
    tiers: dict[str, Stored],
    passes: Passes,
    rounds: int,
    core: int | None,
) -> tuple[dict[str, PerCore], Rates]:
    color_transform = build_color_transform(recipe)
    runners: dict[tuple[str, str], Runner] = {}
    for name, dataset in ours.items():
        runners[name, "uint8"] = on_this_core(dataset, passes, None)
        runners[name, "normalised"] = on_this_core(dataset, passes, color_transform)
    for name, reference in theirs.items():
        runners["reference", name] = reference_on_this_core(reference, passes)
    ready = next(iter(ours.values()))[passes.micro_batches_of(0)[0]]
    assert isinstance(ready, ImageBatch)
    runners["ready", "copied"] = copied(ready, passes)
    runners["ready", "handed over"] = handed_over(ready, passes, core)
    laps = _laps(runners, rounds, "per core", discarded=1)
    hand_over = microseconds(laps["ready", "handed over"]) - microseconds(laps["ready", "copied"])
    per_core = {}
    for name, tier in tiers.items():
        uint8, normalised = laps[name, "uint8"], laps[name, "normalised"]
        stages = {stage: microseconds(uint8, stage) for stage in ("read", "decode", "resize")}
        stages |= {"colour": microseconds(normalised, "colour"), "hand_over": hand_over}
        rate = Rate.of(uint8)
        loader_core = with_hand_over(rate.median, hand_over)
        per_core[name] = PerCore(rate, Rate.of(normalised), stages, loader_core, tier.bytes_per_image)
    return per_core, {name: Rate.of(laps["reference", name]) for name in theirs}


def _in_all(
    ours: dict[str, TrainBatches], theirs: dict[str, ReferenceImages], passes: Passes, rounds: int, workers: int
) -> tuple[dict[str, InAll], Rates]:
    runners: dict[tuple[str, str], Runner] = {}
    for name, dataset in ours.items():
        runners[name, "all"] = through_loader(dataset, passes, workers)
        if workers > 1:
            runners[name, "one"] = through_loader(dataset, passes, 1)
    for name, reference in theirs.items():
        runners["reference", name] = reference_through_loader(reference, passes, workers)
    laps = _laps(runners, rounds, "in all", discarded=0)
    in_all = {}
    for name in ours:
        rate = Rate.of(laps[name, "all"])
        one = Rate.of(laps[name, "one"]) if workers > 1 else None
        in_all[name] = InAll(rate, one, rate.median / one.median if one else None)
    return in_all, {name: Rate.of(laps["reference", name]) for name in theirs}
