"""Runners for this package's input pipeline: on one core, handed over, and with loader processes."""

from __future__ import annotations

import time

from torch.utils.data import Dataset

from resnext_train.bench.bench_images import Passes
from resnext_train.bench.interleaved_timing import Lap, Runner, pin, time_of_items
from resnext_train.config import Recipe
from resnext_train.data.batch_datasets import PREFETCH, BatchBuffers, TrainBatches
from resnext_train.data.batch_loader import LoaderOptions, build_loader, readable_batches
from resnext_train.data.build_loaders import build_color_transform, build_crop_transform
from resnext_train.data.image_batch import ImageBatch, LoadReport, UnreadableImage
from resnext_train.data.sampler import BatchIndices
from resnext_train.data.sources.image_source import ImageSource
from resnext_train.data.transforms.color_transform import ColorTransform
from resnext_train.errors import InputError


def train_batches(recipe: Recipe, source: ImageSource) -> TrainBatches:
    """Return the augmented micro-batches of a recipe, as in training."""
    return TrainBatches(
        source, build_crop_transform(recipe), build_color_transform(recipe), recipe.train.seed, recipe.train.micro_batch
    )


def on_this_core(dataset: TrainBatches, passes: Passes, color_transform: ColorTransform | None) -> Runner:
    """Time micro-batches made in this process and their stages: uint8, or with `color_transform` normalised floats."""

    def run(number: int) -> Lap:
        micro_batches = passes.micro_batches_of(number)
        reports: list[LoadReport] = []
        colour = 0.0
        started = time.perf_counter()
        for indices in micro_batches:
            batch = _readable(dataset[indices])
            reports.append(batch.report)
            if color_transform:
                before = time.perf_counter()
                color_transform(batch.images, batch.jitter)
                colour += time.perf_counter() - before
        seconds = time.perf_counter() - started
        r = LoadReport.sum(reports)
        stages = {"read": r.read, "decode": r.decode, "resize": r.resize, "colour": colour}
        return Lap(passes.images, seconds, stages)

    return run


def _readable(batch: ImageBatch | UnreadableImage) -> ImageBatch:
    if isinstance(batch, UnreadableImage):  # all were readable when the sample was drawn
        raise InputError(f"{batch.message}; was it changed meanwhile?")
    return batch


class ReadyBatches(Dataset[ImageBatch | UnreadableImage]):
    """Copies of a finished batch in the buffers that the loader uses, made on `core`."""

    def __init__(self, batch: ImageBatch, core: int | None = None) -> None:
        self._batch, self._buffers, self._core = batch, BatchBuffers(batch.images.shape[-1], len(batch.images)), core

    def __getitem__(self, indices: BatchIndices) -> ImageBatch:
        pin(self._core)
        images, labels, jitter, report = self._batch
        buffer = self._buffers.next(len(images))
        # Clone the small tensors, too: once handed over they are in shared memory, where a second hand-over is cheap.
        return ImageBatch(buffer.copy_(images), labels.clone(), None if jitter is None else jitter.clone(), report)


def copied(batch: ImageBatch, passes: Passes) -> Runner:
    """Time copies of a finished batch in this process."""
    dataset = ReadyBatches(batch)

    def run(number: int) -> Lap:
        micro_batches = passes.micro_batches_of(number)
        started = time.perf_counter()
        for indices in micro_batches:
            dataset[indices]
        return Lap(passes.images, time.perf_counter() - started, {})

    return run


def handed_over(batch: ImageBatch, passes: Passes, core: int | None) -> Runner:
    """Time the copies from a loader process on `core`; on this process's own core, the work of both adds up."""

    def run(number: int) -> Lap:
        loader = build_loader(ReadyBatches(batch, core), passes.from_(number), LoaderOptions(1, pin_memory=False))
        return Lap(passes.images, time_of_items(readable_batches(loader), 2 * PREFETCH, passes.micro_batches), {})

    return run


def through_loader(dataset: TrainBatches, passes: Passes, workers: int) -> Runner:
    """Time micro-batches from `workers` loader processes as the training process receives them; 0: made in it.

    The loader is new in every round, so that no other loader's processes are running. The first micro-batches of each
    process do not count: it made them while the others started, or ahead of time.
    """
    count = batches_to_count(passes, workers)

    def run(number: int) -> Lap:
        loader = build_loader(dataset, passes.from_(number), LoaderOptions(workers, pin_memory=False))
        return Lap(count * passes.micro_batch, time_of_items(readable_batches(loader), skipped(workers), count), {})

    return run


def batches_to_count(passes: Passes, workers: int) -> int:
    """Return the micro-batches of a round: a pass, rounded up to as many from each loader process, at least four."""
    workers = max(1, workers)
    return workers * max(4, -(-passes.micro_batches // workers))


def skipped(workers: int) -> int:
    """Return the number of first micro-batches that do not count."""
    return 2 * PREFETCH * max(1, workers)
