"""The training images of a recipe: a sample of them, and the packs that are made of it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from resnext_train.config import DataSection, FolderData
from resnext_train.data.build_sources import build_train, split_folder
from resnext_train.data.decode.jpeg_header import BadImageError
from resnext_train.data.decode.lazy_image import LazyImage
from resnext_train.data.loader_workers import usable_cores
from resnext_train.data.pack.pack_format import is_pack
from resnext_train.data.pack.pack_index import PackIndex
from resnext_train.data.rng import permutation
from resnext_train.data.sampler import BatchIndices
from resnext_train.data.sources.image_source import Source
from resnext_train.data.sources.packed_images import PackedImages
from resnext_train.errors import InputError
from resnext_train.prepare.image_splits import Item, ListedSplit
from resnext_train.prepare.pack_records import Tier
from resnext_train.prepare.pack_split import pack_split
from resnext_train.prepare.worker_pool import Advance


class Stored(NamedTuple):
    """Images as they are kept in one way."""

    source: Source
    bytes_per_image: float | None
    """Mean; None: they are in memory."""


class Sample:
    """Some images of a source, in its order."""

    def __init__(self, source: Source, images: NDArray[np.int64]) -> None:
        self.classes, self.storage = source.classes, source.storage
        self.labels: NDArray[np.int64] = source.labels[images]
        self._source, self._images = source, images

    def __len__(self) -> int:
        return len(self.labels)

    def name(self, i: int) -> str:
        """What image `i` is called in messages: for a folder its path."""
        return self._source.name(int(self._images[i]))

    def image(self, i: int) -> LazyImage:
        """Image `i`; raises BadImageError or OSError where it cannot be read."""
        return self._source.image(int(self._images[i]))


@dataclass(frozen=True)
class Measured:
    """What is measured on."""

    where: str
    """Folder or pack; "": in memory."""
    storage: str
    """How the images are kept there: folder, exact, resized, raw or memory."""
    files: int
    """Different images."""
    unreadable: int
    """Images that were left out because nothing reads them."""
    height: float
    width: float
    """Mean size in pixels."""
    crop: int
    """Height and width of the crops that are made of them."""
    images: int
    """Images in a pass: the same ones again and again if there are fewer."""
    group: int
    """Images that are put together to one tensor."""
    rounds: int
    """Passes that count."""


def find_images(section: DataSection) -> tuple[Stored, str]:
    """The training images of a recipe, and where they are.

    Raises:
        InputError: see `build_train`.
    """
    source = build_train(section)
    if not isinstance(section, FolderData) or source.storage.kind == "memory":
        return Stored(source, None), ""
    folder = split_folder(section, "train")
    return Stored(source, float(PackIndex(folder).length.mean()) if is_pack(folder) else None), str(folder)


def evenly(source: Source, count: int, skip: bool) -> tuple[Sample, int, tuple[float, float]]:
    """At most `count` images, evenly spaced; how many of them nothing reads; the others' mean height and width.

    Each is decoded once, which also puts its file into the system's cache.

    Raises:
        InputError: an image cannot be read and `skip` is not set, or none can be read.
    """
    count = min(count, len(source))
    good: list[int] = []
    sizes: list[tuple[int, int]] = []
    for i in (np.arange(count, dtype=np.int64) * len(source) // count).tolist():
        try:
            image = source.image(i)
            image.region(0, 0, image.height, image.width)
        except (BadImageError, OSError) as error:
            if not skip:
                raise InputError(
                    f"{source.name(i)} cannot be read: {error}; replace or remove it, or set data.on_bad_image=skip"
                ) from error
            continue
        good.append(i)
        sizes.append((image.height, image.width))
    if not good:
        raise InputError(f"none of {count} images can be read; `resnext-prepare check` lists what is wrong with them")
    height, width = np.mean(sizes, axis=0).tolist()
    return Sample(source, np.array(good, np.int64)), count - len(good), (height, width)


def file_bytes(sample: Sample) -> float:
    """Mean size of the files of a folder's sample."""
    return sum(Path(sample.name(i)).stat().st_size for i in range(len(sample))) / len(sample)


def packed(sample: Sample, tier: Tier, folder: Path, advance: Advance) -> Stored:
    """The files of a folder's sample, packed into `folder`: image i is image i.

    Raises:
        InputError: the folder cannot be written.
    """
    listed = []
    for i, label in enumerate(sample.labels.tolist()):
        path = Path(sample.name(i)).absolute()
        listed.append(Item(f"{i:08d}-{path.name}", label, str(path)))
    split = ListedSplit("the sample", sample.classes, listed)
    # Packing is not what is measured here: of each shard, one image is compared with its original.
    pack_split(split, folder, tier, len(sample), usable_cores(), advance)
    images = PackedImages(folder)
    assert np.array_equal(images.labels, sample.labels)
    return Stored(images, float(PackIndex(folder).length.mean()))


@dataclass(frozen=True)
class Passes:
    """Passes over `files` images in random order, in `groups` groups of `group`; files are repeated to fill them."""

    files: int
    group: int
    groups: int
    seed: int

    @property
    def images(self) -> int:
        """Images in a pass."""
        return self.group * self.groups

    def micro_batches_of(self, number: int) -> list[BatchIndices]:
        """The groups of pass `number`; each is of an epoch of its own, so that a repeated file gets another crop."""
        repeats = -(-self.images // self.files)
        orders = [permutation(self.seed, number * repeats + k, self.files) for k in range(repeats)]
        groups = np.concatenate(orders)[: self.images].reshape(self.groups, self.group)
        return [BatchIndices(number * self.groups + g, images) for g, images in enumerate(groups)]

    def from_(self, number: int) -> Iterator[BatchIndices]:
        """The groups of pass `number` and of all after it, without end."""
        return itertools.chain.from_iterable(map(self.micro_batches_of, itertools.count(number)))
