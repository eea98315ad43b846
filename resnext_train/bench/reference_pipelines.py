"""Reference input pipelines: torchvision's usual ones, as in its training references and most trainers.

They differ from ours: aspect ratios are log-uniform, interpolation is bilinear (torchvision's default), each colour
jitter clamps, there is no lighting. They make floats image by image in the loader process, where ours hands over bytes
and leaves colours and normalisation to the device.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision.io
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms
from torchvision.io import ImageReadMode
from torchvision.transforms import v2

from resnext_train.bench.bench_images import Passes
from resnext_train.bench.interleaved_timing import Lap, Runner, time_of_items
from resnext_train.bench.own_pipeline import batches_to_count, skipped
from resnext_train.config import AreaAugment, Recipe
from resnext_train.data.sources.class_subset import ImageSubset
from resnext_train.errors import InputError

PILLOW, PILLOW_COLOUR, IO, IO_COLOUR = "pillow", "pillow+colour", "io", "io+colour"
TITLES = {
    PILLOW: "Pillow + transforms",
    PILLOW_COLOUR: "Pillow + transforms + ColorJitter",
    IO: "torchvision.io + v2",
    IO_COLOUR: "torchvision.io + v2 + ColorJitter",
}


@dataclass(frozen=True)
class Pipeline:
    """Turns a file into a normalised float crop (3, size, size)."""

    open: Callable[[str], Any]
    transform: Callable[[Any], Tensor]


def build_pipelines(recipe: Recipe) -> dict[str, Pipeline]:
    """Return the reference pipelines with the sizes, ranges and strengths of a recipe.

    Raises:
        InputError: the recipe has another kind of crop.
    """
    a = recipe.augment
    if not isinstance(a, AreaAugment):
        raise InputError(
            f"--baseline compares with torchvision's RandomResizedCrop, but the recipe has augment.crop={a.crop}; "
            "leave it out"
        )
    crop = {"size": a.size, "scale": a.area, "ratio": a.aspect}
    strengths = (a.brightness, a.contrast, a.saturation)
    mean, std = recipe.data.mean, recipe.data.std

    def pillow(*colour: Callable[[Any], Any]) -> Pipeline:
        first = [transforms.RandomResizedCrop(**crop), transforms.RandomHorizontalFlip(a.flip)]
        last = [transforms.ToTensor(), transforms.Normalize(mean, std)]
        return Pipeline(open_with_pillow, transforms.Compose([*first, *colour, *last]))

    def io(*colour: Callable[[Any], Any]) -> Pipeline:
        first = [v2.RandomResizedCrop(**crop), v2.RandomHorizontalFlip(a.flip)]
        last = [v2.ToDtype(torch.float32, scale=True), v2.Normalize(mean, std)]
        return Pipeline(open_with_torchvision, v2.Compose([*first, *colour, *last]))

    return {
        PILLOW: pillow(),
        PILLOW_COLOUR: pillow(transforms.ColorJitter(*strengths)),
        IO: io(),
        IO_COLOUR: io(v2.ColorJitter(*strengths)),
    }


def open_with_pillow(path: str) -> Image.Image:
    """Open an image like torchvision's ImageFolder."""
    with Path(path).open("rb") as file:
        return Image.open(file).convert("RGB")


def open_with_torchvision(path: str) -> Tensor:
    """Decode to uint8 RGB (3, H, W); formats that torchvision does not decode, such as CMYK, with Pillow."""
    data = torchvision.io.read_file(path)
    try:
        is_jpeg = data[:2].tolist() == [0xFF, 0xD8]
        pixels: Tensor = (torchvision.io.decode_jpeg if is_jpeg else torchvision.io.decode_image)(
            data, mode=ImageReadMode.RGB
        )
        return pixels
    except RuntimeError:
        return torch.from_numpy(np.array(open_with_pillow(path))).permute(2, 0, 1)


class ReferenceImages(Dataset[tuple[Tensor, int]]):
    """A folder's sample through a reference pipeline."""

    def __init__(self, sample: ImageSubset, pipeline: Pipeline) -> None:
        self._files = [sample.name(i) for i in range(len(sample))]
        self._labels: list[int] = sample.labels.tolist()
        self._pipeline = pipeline

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        return self._pipeline.transform(self._pipeline.open(self._files[i])), self._labels[i]


def reference_on_this_core(dataset: ReferenceImages, passes: Passes) -> Runner:
    """Time images made in this process, without collating them into batches, which would take longer still."""

    def run(number: int) -> Lap:
        images = [i for batch in passes.micro_batches_of(number) for i in batch.images.tolist()]
        started = time.perf_counter()
        for i in images:
            dataset[i]
        return Lap(passes.images, time.perf_counter() - started, {})

    return run


def reference_through_loader(dataset: ReferenceImages, passes: Passes, workers: int) -> Runner:
    """Time batches from `workers` loader processes, counted as in `through_loader`."""
    count = batches_to_count(passes, workers)

    def run(number: int) -> Lap:
        loader = DataLoader(
            dataset,
            batch_size=passes.micro_batch,
            sampler=_images(passes, number),
            num_workers=workers,
            worker_init_fn=_init_worker,
            generator=torch.Generator(),
        )
        return Lap(count * passes.micro_batch, time_of_items(loader, skipped(workers), count), {})

    return run


def _images(passes: Passes, number: int) -> Iterator[int]:
    return (i for batch in passes.from_(number) for i in batch.images.tolist())


def _init_worker(worker: int) -> None:
    _ignore_torchcodec_warning()


def _ignore_torchcodec_warning() -> None:
    warnings.filterwarnings("ignore", "(?i).*torchcodec")


@contextmanager
def quiet() -> Iterator[None]:
    """Suppress torchvision 0.29's recommendation of torchcodec, a warning in every loader process."""
    with warnings.catch_warnings():
        _ignore_torchcodec_warning()
        yield
