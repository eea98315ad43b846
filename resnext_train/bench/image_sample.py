"""Sample training images, and pack the sample."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from resnext_train.bench.interleaved_timing import progress
from resnext_train.data.decode.jpeg_header import BadImageError
from resnext_train.data.pack.pack_index import PackIndex
from resnext_train.data.sources.class_subset import ImageSubset
from resnext_train.data.sources.image_source import ImageSource
from resnext_train.data.sources.packed_images import PackedImages
from resnext_train.distributed.usable_cores import usable_cores
from resnext_train.errors import InputError
from resnext_train.prepare import DEFAULT_QUALITY, DEFAULT_SIZE
from resnext_train.prepare.image_splits import Item, ListedSplit
from resnext_train.prepare.pack_records import Tier, find_jpegtran
from resnext_train.prepare.pack_split import pack_split

NO_JPEGTRAN = "tier exact is left out: it needs jpegtran, which is not installed (libjpeg-turbo has it)"


class Stored(NamedTuple):
    """Images in one form of storage."""

    images: ImageSource
    bytes_per_image: float | None
    """Mean; None: in memory."""


def evenly(source: ImageSource, count: int, skip: bool) -> tuple[ImageSubset, int, tuple[float, float]]:
    """Return up to `count` evenly spaced readable images, the number of unreadable ones, and mean height and width.

    Each is decoded once, which also brings its file into the system's cache.

    Raises:
        InputError: an image cannot be read and `skip` is not set, or fewer than two can be read.
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
    if len(sizes) < 2:
        raise InputError(
            f"{len(sizes)} of {count} images can be read, and at least 2 are needed; `resnext prepare check` lists "
            "what is wrong with the others"
        )
    height, width = np.mean(list(sizes.values()), axis=0).tolist()
    return ImageSubset(source, np.array(list(sizes), np.int64)), count - len(sizes), (height, width)


def in_tiers(sample: ImageSubset, where: Path, tiers: Sequence[str], folder: Path) -> dict[str, Stored]:
    """Return a folder's sample in each of `tiers`, packed below `folder`; without jpegtran not in tier exact.

    A sample of the pack `where` or of images in memory is returned as it is.

    Raises:
        InputError: no tier is left, or `folder` cannot be written.
    """
    kind, jpegtran = sample.storage.kind, find_jpegtran()
    if kind != "folder":
        return {kind: Stored(sample, None if kind == "memory" else _mean_record(where))}
    possible = [tier for tier in tiers if tier != "exact" or jpegtran]
    if not possible:
        raise InputError(f"nothing is left to measure: {NO_JPEGTRAN}")
    packs = {
        "exact": Tier("exact", None, None, jpegtran),
        "resized": Tier("resized", DEFAULT_SIZE, DEFAULT_QUALITY, jpegtran),
        "raw": Tier("raw", DEFAULT_SIZE, None, jpegtran),
    }
    files = [Path(sample.name(i)).absolute() for i in range(len(sample))]
    items = [Item(f"{i:08d}-{file.name}", int(sample.labels[i]), str(file)) for i, file in enumerate(files)]
    split = ListedSplit("the sample", sample.classes, items)
    stored = {"folder": Stored(sample, sum(file.stat().st_size for file in files) / len(files))}
    to_pack = [tier for tier in possible if tier in packs]
    with progress(len(sample) * len(to_pack), "packing", "image") as advance:
        for tier in to_pack:
            # Packing is not measured here: compare only one image per shard with its original.
            pack_split(split, folder / tier, packs[tier], len(sample), usable_cores(), advance)
            stored[tier] = Stored(PackedImages(folder / tier), _mean_record(folder / tier))
            assert np.array_equal(stored[tier].images.labels, sample.labels), "the images are in the same order"
    return {tier: stored[tier] for tier in possible}


def _mean_record(pack: Path) -> float:
    return float(PackIndex(pack).length.mean())
