"""The pipelines to time: training's own and, as references, those of torchvision's training references.

The references differ from ours: aspect ratios are log-uniform (as ours with augment.aspect_law=log), interpolation is
bilinear (torchvision's default), each colour jitter clamps, there is no lighting, nothing is erased and no operation of
auto_augment done. They make floats image by image in the loader process, where ours hands over bytes and leaves the
rest to the device.
"""

from __future__ import annotations

import itertools
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision.io
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, RandomSampler
from torchvision import transforms
from torchvision.transforms import v2

from resnext_train.bench.interleaved_timing import Lap, Runner
from resnext_train.config import AreaAugment, Recipe
from resnext_train.data.batch_datasets import PREFETCH
from resnext_train.data.build_loaders import build_train_loader
from resnext_train.data.image_batch import ImageBatch
from resnext_train.data.loader_workers import process_arguments, starting_processes
from resnext_train.data.sampler import StepPlan
from resnext_train.data.sources.class_subset import ImageSubset
from resnext_train.data.sources.image_source import ImageSource
from resnext_train.data.transforms.color_transform import ColorTransform
from resnext_train.distributed.dist_context import DistContext
from resnext_train.distributed.rank import Rank
from resnext_train.errors import InputError

STAGES = ("read", "decode", "resize", "colour")

NO_DECODER = "torchvision.io is left out: this torchvision decodes no images"

MORE_WORK = "auto_augment={}: ours do its operations, the references do not; for equal work: auto_augment.name=none"

Pipeline = Callable[[int, range], Iterable[Any]]
"""Returns a new loader with a number of processes. It yields a range of micro-batches, counted over all epochs."""


def training_pipeline(recipe: Recipe, source: ImageSource, micro_batch: int) -> Pipeline:
    """Return the loader of training, on the CPU, of micro-batches that are all whole."""
    plan = StepPlan(len(source) // micro_batch * micro_batch, micro_batch, 1)
    context = DistContext(Rank(), torch.device("cpu"))

    def load(workers: int, steps: range) -> Iterable[ImageBatch]:
        data = recipe.data.model_copy(update={"workers": workers})
        alone = recipe.model_copy(update={"data": data})
        return build_train_loader(alone, source, plan, context, steps, lambda unreadable: None)

    return load


def timed(pipeline: Pipeline, workers: int, micro_batches: int, colours: ColorTransform | None = None) -> Runner:
    """Time at least `micro_batches` from `workers` loader processes, or in this one if 0; `colours` transforms them.

    The number is rounded up, so that each process makes equally many, and four or more. The loader is new in every
    round, so that no other loader's processes are running. The first micro-batches of each process do not count: it
    made them while the others started, or ahead of time.
    """
    skipped, count = 2 * PREFETCH * workers, micro_batches
    if workers:
        count = workers * max(4, -(-micro_batches // workers))

    def run(number: int) -> Lap:
        first = number * (skipped + count)
        batches = iter(pipeline(workers, range(first, first + skipped + count + skipped)))  # busy until the end
        for _ in range(skipped):
            next(batches)
        stages, images, started = dict.fromkeys(STAGES, 0.0), 0, time.perf_counter()
        for batch in itertools.islice(batches, count):
            images += len(batch[1])
            if isinstance(batch, ImageBatch):
                stages["read"] += batch.report.read
                stages["decode"] += batch.report.decode
                stages["resize"] += batch.report.resize
            if colours:
                before = time.perf_counter()
                colours(batch.images, batch.color_maps)
                stages["colour"] += time.perf_counter() - before
        return Lap(images, time.perf_counter() - started, stages)

    return run


@contextmanager
def one_thread() -> Iterator[None]:
    """Limit torch to one thread, as in a loader process."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def reference_pipelines(recipe: Recipe, sample: ImageSubset, batch_size: int) -> dict[str, Pipeline]:
    """Return pipelines from the files of `sample` to normalised crops, with the sizes and strengths of a recipe.

    Where torchvision decodes no more, only those that decode with Pillow.

    Raises:
        InputError: the recipe has another kind of crop.
    """
    a, mean, std = recipe.augment, recipe.data.mean, recipe.data.std
    if not isinstance(a, AreaAugment):
        raise InputError(
            f"--baseline compares with torchvision's RandomResizedCrop, but the recipe has augment.crop={a.crop}; "
            "leave it out"
        )
    crop, colours = {"size": a.size, "scale": a.area, "ratio": a.aspect}, (a.brightness, a.contrast, a.saturation)
    pillow = [_open_with_pillow, transforms.RandomResizedCrop(**crop), transforms.RandomHorizontalFlip(a.flip)]
    floats = [transforms.ToTensor(), transforms.Normalize(mean, std)]
    io = [_open_with_torchvision, v2.RandomResizedCrop(**crop), v2.RandomHorizontalFlip(a.flip)]
    io_floats = [v2.ToDtype(torch.float32, scale=True), v2.Normalize(mean, std)]
    of_one = {
        "Pillow": transforms.Compose([*pillow, *floats]),
        "Pillow + ColorJitter": transforms.Compose([*pillow, transforms.ColorJitter(*colours), *floats]),
    }
    if hasattr(torchvision.io, "decode_image"):
        of_one["torchvision.io"] = v2.Compose([*io, *io_floats])
        of_one["torchvision.io + ColorJitter"] = v2.Compose([*io, v2.ColorJitter(*colours), *io_floats])
    return {name: _reference(sample, transform, batch_size) for name, transform in of_one.items()}


def _reference(sample: ImageSubset, transform: Callable[[str], Tensor], batch_size: int) -> Pipeline:
    images = _ReferenceImages(sample, transform)

    def load(workers: int, steps: range) -> Iterable[Any]:
        order = torch.Generator().manual_seed(steps.start)
        sampler = RandomSampler(images, num_samples=batch_size * len(steps), generator=order)
        with starting_processes(workers):
            return iter(DataLoader(images, batch_size, sampler=sampler, **process_arguments(workers)))

    return load


class _ReferenceImages(Dataset[tuple[Tensor, int]]):
    def __init__(self, sample: ImageSubset, transform: Callable[[str], Tensor]) -> None:
        self._files, self._labels = [sample.name(i) for i in range(len(sample))], sample.labels.tolist()
        self._transform = transform

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        return self._transform(self._files[i]), self._labels[i]


def _open_with_pillow(path: str) -> Image.Image:
    """Open an image like torchvision's ImageFolder."""
    with Path(path).open("rb") as file:
        return Image.open(file).convert("RGB")


def _open_with_torchvision(path: str) -> Tensor:
    """Decode to uint8 RGB (3, H, W); formats that torchvision does not decode, such as CMYK, with Pillow."""
    warnings.filterwarnings("ignore", "(?i).*torchcodec")  # 0.29 recommends it in every loader process
    try:
        pixels: Tensor = torchvision.io.decode_image(path, mode="RGB")
        return pixels
    except RuntimeError:
        return torch.from_numpy(np.array(_open_with_pillow(path))).permute(2, 0, 1)
