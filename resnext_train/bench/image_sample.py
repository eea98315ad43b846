"""Sample training images, pack the sample, and order it in passes."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from resnext_train.data.decode.jpeg_header import BadImageError
from resnext_train.data.loader_workers import usable_cores
from resnext_train.data.pack.pack_index import PackIndex
from resnext_train.data.rng import permutation
from resnext_train.data.sampler import BatchIndices
from resnext_train.data.sources.class_subset import ImageSubset
from resnext_train.data.sources.image_source import ImageSource
from resnext_train.data.sources.packed_images import PackedImages
from resnext_train.errors import InputError
from resnext_train.prepare.image_splits import Item, ListedSplit
from resnext_train.prepare.pack_records import Tier
from resnext_train.prepare.pack_split import pack_split
from resnext_train.prepare.worker_pool import Advance


def evenly(source: ImageSource, count: int, skip: bool) -> tuple[ImageSubset, int, tuple[float, float]]:
    """Return up to `count` evenly spaced readable images, the number of unreadable ones, and mean height and width.

    Each is decoded once, which also brings its file into the system's cache.

    Raises:
        InputError: an image cannot be read and `skip` is not set, or none can be read.
    """
    count = min(count, len(source))
    sizes: dict[int, tuple[int, int]] = {}
    for i in (np.arange(count, dtype=np.int64) * len(source) // count).tolist():
        try:
            image = source.image(i)
            image.region(0, 0, image.height, image.width)
            sizes[i] = image.height, image.width
        except (BadImageError, OSError) as error:
            if not skip:
                raise InputError(
                    f"{source.name(i)} cannot be read: {error}; replace or remove it, or set data.on_bad_image=skip"
                ) from error
    if not sizes:
        raise InputError(f"none of {count} images can be read; `resnext-prepare check` lists what is wrong with them")
    height, width = np.mean(list(sizes.values()), axis=0).tolist()
    return ImageSubset(source, np.array(list(sizes), np.int64)), count - len(sizes), (height, width)


def bytes_per_image(sample: ImageSubset, pack: Path) -> float | None:
    """Return the mean size of a sample's files, or of all images of the pack it is from; None: in memory."""
    kind = sample.storage.kind
    if kind == "folder":
        return sum(Path(sample.name(i)).stat().st_size for i in range(len(sample))) / len(sample)
    return None if kind == "memory" else float(PackIndex(pack).length.mean())


def packed(sample: ImageSubset, tier: Tier, folder: Path, advance: Advance) -> ImageSubset:
    """Pack a folder's sample into `folder`, with images in the same order.

    Raises:
        InputError: the folder cannot be written.
    """
    paths = [Path(sample.name(i)).absolute() for i in range(len(sample))]
    listed = [Item(f"{i:08d}-{path.name}", int(sample.labels[i]), str(path)) for i, path in enumerate(paths)]
    split = ListedSplit("the sample", sample.classes, listed)
    # Packing is not measured here: compare only one image per shard with its original.
    pack_split(split, folder, tier, len(sample), usable_cores(), advance)
    images = PackedImages(folder)
    assert np.array_equal(images.labels, sample.labels)
    return ImageSubset(images, np.arange(len(images)))


@dataclass(frozen=True)
class Passes:
    """Passes over `files` images in random order, each of `micro_batches` of `micro_batch` images; files may repeat."""

    files: int
    micro_batch: int
    micro_batches: int
    seed: int

    @property
    def images(self) -> int:
        return self.micro_batch * self.micro_batches

    def micro_batches_of(self, number: int) -> list[BatchIndices]:
        """Return the micro-batches of pass `number`, each as an epoch of its own: a repeated file gets another crop."""
        repeats = -(-self.images // self.files)
        orders = [permutation(self.seed, number * repeats + k, self.files) for k in range(repeats)]
        batches = np.concatenate(orders)[: self.images].reshape(self.micro_batches, self.micro_batch)
        return [BatchIndices(number * self.micro_batches + b, images) for b, images in enumerate(batches)]

    def from_(self, number: int) -> Iterator[BatchIndices]:
        """Yield the micro-batches of pass `number` and of all later ones, endlessly."""
        return itertools.chain.from_iterable(map(self.micro_batches_of, itertools.count(number)))
