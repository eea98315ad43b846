"""The pipelines to time: this package's own and, as references, those of torchvision's training references.

The references differ from ours: aspect ratios are log-uniform, interpolation is bilinear (torchvision's default), each
colour jitter clamps, there is no lighting. They make floats image by image in the loader process, where ours hands over
bytes and leaves colours and normalisation to the device.
"""

from __future__ import annotations

import functools
import itertools
import os
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision.io
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate, get_worker_info
from torchvision import transforms
from torchvision.io import ImageReadMode
from torchvision.transforms import v2

from resnext_train.bench.image_sample import Passes
from resnext_train.bench.interleaved_timing import Lap, Runner
from resnext_train.config import AreaAugment, Recipe
from resnext_train.data.batch_datasets import PREFETCH, BatchBuffers, TrainBatches
from resnext_train.data.build_loaders import build_color_transform, build_crop_transform
from resnext_train.data.device_loader import DeviceLoader
from resnext_train.data.image_batch import ImageBatch
from resnext_train.data.sampler import BatchIndices
from resnext_train.data.sources.class_subset import ImageSubset
from resnext_train.data.sources.image_source import ImageSource
from resnext_train.data.transforms.color_transform import ColorTransform
from resnext_train.errors import InputError


def timed(dataset: Dataset[Any], passes: Passes, workers: int, colours: ColorTransform | None = None) -> Runner:
    """Time micro-batches from `workers` loader processes as the training process receives them; 0: made in it.

    The stages are those of this package's micro-batches; `colours` transforms them, too. The loader is new in every
    round, so that no other loader's processes are running. The first micro-batches of each process do not count: it
    made them while the others started, or ahead of time.
    """
    skipped, count = 2 * PREFETCH * workers, batches_to_count(passes, workers)

    def run(number: int) -> Lap:
        batches = _loaded(dataset, passes.from_(number), workers)
        for _ in range(skipped):
            next(batches)
        stages = dict.fromkeys(("read", "decode", "resize", "colour"), 0.0)
        started = time.perf_counter()
        for batch in itertools.islice(batches, count):
            if isinstance(batch, ImageBatch):
                stages["read"] += batch.report.read
                stages["decode"] += batch.report.decode
                stages["resize"] += batch.report.resize
            if colours:
                before = time.perf_counter()
                colours(batch.images, batch.jitter)
                stages["colour"] += time.perf_counter() - before
        return Lap(count * passes.micro_batch, time.perf_counter() - started, stages)

    return run


def _loaded(dataset: Dataset[Any], sampler: Iterable[BatchIndices], workers: int) -> Iterator[Any]:
    """Return the batches of a new loader: of training's for our own, of torch's as it is for references."""
    if isinstance(dataset, ReferenceBatches):
        return iter(DataLoader(dataset, batch_size=None, sampler=sampler, num_workers=workers))
    return iter(DeviceLoader(dataset, sampler, workers, torch.device("cpu"), lambda unreadable: None))


def batches_to_count(passes: Passes, workers: int) -> int:
    """Return the micro-batches of a round: a pass, rounded up to as many from each loader process, four or more."""
    return workers * max(4, -(-passes.micro_batches // workers)) if workers else passes.micro_batches


def train_batches(recipe: Recipe, source: ImageSource) -> TrainBatches:
    """Return the augmented micro-batches of a recipe, as in training."""
    return TrainBatches(
        source, build_crop_transform(recipe), build_color_transform(recipe), recipe.train.seed, recipe.train.micro_batch
    )


class ReadyBatches(Dataset[ImageBatch]):
    """Copies of a finished batch in the buffers that the loader uses, made on `core`.

    A loader process takes as long to make and hand over one of these as this process takes to make it, and longer by
    the hand-over. On this process's own core, the work of both processes adds up.
    """

    def __init__(self, batch: ImageBatch, core: int | None) -> None:
        self._batch, self._buffers, self._core = batch, BatchBuffers(batch.images.shape[-1], len(batch.images)), core

    def __getitem__(self, indices: BatchIndices) -> ImageBatch:
        if self._core is not None:
            os.sched_setaffinity(0, {self._core})
        images, labels, jitter, report = self._batch
        buffer = self._buffers.next(len(images))
        # Clone the small tensors, too: once handed over they are in shared memory, where a second hand-over is cheap.
        return ImageBatch(buffer.copy_(images), labels.clone(), None if jitter is None else jitter.clone(), report)


REFERENCES = {
    "pillow": "Pillow + transforms",
    "pillow+colour": "Pillow + transforms + ColorJitter",
    "io": "torchvision.io + v2",
    "io+colour": "torchvision.io + v2 + ColorJitter",
}
"""Titles of the reference pipelines."""


def build_references(recipe: Recipe) -> dict[str, Callable[[str], Tensor]]:
    """Return functions from a file to a normalised float crop (3, S, S), with the sizes and strengths of a recipe.

    Raises:
        InputError: the recipe has another kind of crop.
    """
    a = recipe.augment
    if not isinstance(a, AreaAugment):
        raise InputError(
            f"--baseline compares with torchvision's RandomResizedCrop, but the recipe has augment.crop={a.crop}; "
            "leave it out"
        )
    crop, colours = {"size": a.size, "scale": a.area, "ratio": a.aspect}, (a.brightness, a.contrast, a.saturation)
    mean, std = recipe.data.mean, recipe.data.std
    pillow = [open_with_pillow, transforms.RandomResizedCrop(**crop), transforms.RandomHorizontalFlip(a.flip)]
    pillow_floats = [transforms.ToTensor(), transforms.Normalize(mean, std)]
    io = [open_with_torchvision, v2.RandomResizedCrop(**crop), v2.RandomHorizontalFlip(a.flip)]
    io_floats = [v2.ToDtype(torch.float32, scale=True), v2.Normalize(mean, std)]
    return {
        "pillow": transforms.Compose([*pillow, *pillow_floats]),
        "pillow+colour": transforms.Compose([*pillow, transforms.ColorJitter(*colours), *pillow_floats]),
        "io": v2.Compose([*io, *io_floats]),
        "io+colour": v2.Compose([*io, v2.ColorJitter(*colours), *io_floats]),
    }


def open_with_pillow(path: str) -> Image.Image:
    """Open an image like torchvision's ImageFolder."""
    with Path(path).open("rb") as file:
        return Image.open(file).convert("RGB")


def open_with_torchvision(path: str) -> Tensor:
    """Decode to uint8 RGB (3, H, W); formats that torchvision does not decode, such as CMYK, with Pillow."""
    _ignore_torchcodec_warning()
    try:
        pixels: Tensor = torchvision.io.decode_image(path, mode=ImageReadMode.RGB)
        return pixels
    except RuntimeError:
        return torch.from_numpy(np.array(open_with_pillow(path))).permute(2, 0, 1)


@functools.cache
def _ignore_torchcodec_warning() -> None:
    """Suppress torchvision 0.29's recommendation of torchcodec, a warning in every loader process."""
    warnings.filterwarnings("ignore", "(?i).*torchcodec")


class ReferenceBatches(Dataset[Any]):
    """Micro-batches of a folder's sample through a reference pipeline.

    Only loader processes collate the images; in this process that would take longer still.
    """

    def __init__(self, sample: ImageSubset, reference: Callable[[str], Tensor]) -> None:
        self._files = [sample.name(i) for i in range(len(sample))]
        self._labels: list[int] = sample.labels.tolist()
        self._reference = reference

    def __getitem__(self, indices: BatchIndices) -> Any:
        images = [(self._reference(self._files[i]), self._labels[i]) for i in indices.images.tolist()]
        return default_collate(images) if get_worker_info() else images
