"""This package's own input path as something to measure: on one core, handed over, and with loader processes."""

from __future__ import annotations

import time

from torch.utils.data import Dataset

from resnext_train.bench.bench_images import Passes
from resnext_train.bench.interleaved_timing import Lap, Runner, pin, time_of_items
from resnext_train.config import Recipe
from resnext_train.data.batch_datasets import AHEAD, BatchBuffers, TrainBatches
from resnext_train.data.batch_loader import LoaderOptions, build_loader, readable_batches
from resnext_train.data.build_loaders import build_color_transform, build_crop_transform
from resnext_train.data.image_batch import ImageBatch, LoadReport, UnreadableImage
from resnext_train.data.sampler import BatchIndices
from resnext_train.data.sources.image_source import Source
from resnext_train.data.transforms.color_transform import ColorTransform
from resnext_train.errors import InputError


def train_groups(recipe: Recipe, source: Source) -> TrainBatches:
    """The augmented groups of a recipe, as training makes them."""
    return TrainBatches(
        source, build_crop_transform(recipe), build_color_transform(recipe), recipe.train.seed, recipe.train.micro_batch
    )


def on_this_core(dataset: TrainBatches, passes: Passes, color_transform: ColorTransform | None) -> Runner:
    """Groups made in this process, uint8 or, with `color_transform`, normalised floats; with the time in each stage."""

    def run(number: int) -> Lap:
        groups = passes.micro_batches_of(number)
        reports: list[LoadReport] = []
        colour = 0.0
        started = time.perf_counter()
        for indices in groups:
            group = _good(dataset[indices])
            reports.append(group.report)
            if color_transform:
                began = time.perf_counter()
                color_transform(group.images, group.jitter)
                colour += time.perf_counter() - began
        seconds = time.perf_counter() - started
        r = LoadReport.sum(reports)
        stages = {"read": r.read, "decode": r.decode, "resize": r.resize, "colour": colour}
        return Lap(passes.images, seconds, stages)

    return run


def _good(group: ImageBatch | UnreadableImage) -> ImageBatch:
    if isinstance(group, UnreadableImage):  # all could be read a moment ago
        raise InputError(f"{group.message}; was it changed meanwhile?")
    return group


class ReadyGroups(Dataset[ImageBatch | UnreadableImage]):
    """Copies of a group that is ready, in the kind of memory that new groups are made in, made on `core`."""

    def __init__(self, group: ImageBatch, core: int | None = None) -> None:
        self._group, self._batches, self._core = group, BatchBuffers(group.images.shape[-1], len(group.images)), core

    def __getitem__(self, indices: BatchIndices) -> ImageBatch:
        pin(self._core)
        images, labels, jitter, report = self._group
        batch = self._batches.next(len(images))
        # Of the small tensors new ones, too: those handed over once are in shared memory already.
        return ImageBatch(batch.copy_(images), labels.clone(), None if jitter is None else jitter.clone(), report)


def copied(group: ImageBatch, passes: Passes) -> Runner:
    """Copies of a ready group, made in this process."""
    dataset = ReadyGroups(group)

    def run(number: int) -> Lap:
        groups = passes.micro_batches_of(number)
        started = time.perf_counter()
        for indices in groups:
            dataset[indices]
        return Lap(passes.images, time.perf_counter() - started, {})

    return run


def handed_over(group: ImageBatch, passes: Passes, core: int | None) -> Runner:
    """The same from a loader process on `core`; on the same core as this one, the work of both adds up."""

    def run(number: int) -> Lap:
        loader = build_loader(ReadyGroups(group, core), passes.from_(number), LoaderOptions(1, pin_memory=False))
        return Lap(passes.images, time_of_items(readable_batches(loader), 2 * AHEAD, passes.groups), {})

    return run


def through_loader(dataset: TrainBatches, passes: Passes, workers: int) -> Runner:
    """Groups as they reach the training process from `workers` loader processes, or from itself if there are none.

    The processes are new in every round, so that only those that are measured are there. The first groups of each are
    not counted: it made them while the others started, or before they were asked for.
    """
    count = groups_to_count(passes, workers)

    def run(number: int) -> Lap:
        loader = build_loader(dataset, passes.from_(number), LoaderOptions(workers, pin_memory=False))
        return Lap(count * passes.group, time_of_items(readable_batches(loader), skipped(workers), count), {})

    return run


def groups_to_count(passes: Passes, workers: int) -> int:
    """Groups of a round: those of a pass, but as many of each loader process, and at least four."""
    workers = max(1, workers)
    return workers * max(4, -(-passes.groups // workers))


def skipped(workers: int) -> int:
    """Groups before those that count."""
    return 2 * AHEAD * max(1, workers)
