"""Batches made image by image in a loader process: read, decode, crop, into reused shared memory."""

from __future__ import annotations

import errno
import time

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, get_worker_info

from resnext_train.data.decode.jpeg_header import BadImageError
from resnext_train.data.image_batch import Group, Report, Unreadable
from resnext_train.data.rng import uniforms
from resnext_train.data.sampler import Indices
from resnext_train.data.sources.image_source import Source
from resnext_train.data.transforms.color_transform import Photometric
from resnext_train.data.transforms.crop_transforms import COLOUR_DRAWS, DRAWS, NO_DRAWS, EvalTransform, Transform
from resnext_train.errors import LocalInputError, printable


def empty_batch(count: int, size: int, shared: bool) -> Tensor:
    """An uninitialised uint8 batch (count, 3, size, size), channels-last, in memory that is `shared` or not."""
    memory = torch.empty(count, size, size, 3, dtype=torch.uint8)
    return (memory.share_memory_() if shared else memory).permute(0, 3, 1, 2)


class TrainGroups(Dataset[Group | Unreadable]):
    """Augmented groups; how an image is augmented is a function of (seed, epoch, image).

    Where `skip` is set, an image that cannot be read is replaced by the next one that can, if that is among the next
    PATIENCE. `largest` is the size of the largest group.
    """

    def __init__(
        self,
        source: Source,
        transform: Transform,
        photometric: Photometric,
        seed: int,
        largest: int,
        skip: bool = False,
    ) -> None:
        self.source, self.transform, self.photometric = source, transform, photometric
        self.seed, self.skip = seed, skip
        self._batches = Batches(transform.size, largest)

    def __getitem__(self, indices: Indices) -> Group | Unreadable:
        draws = uniforms(self.seed, indices.epoch, indices.images, DRAWS)
        crops = _Crops(self.source, self.transform, self._batches.next(len(indices.images)))
        images = indices.images.copy()
        for slot, wanted in enumerate(images.tolist()):
            tried = range(wanted, wanted + 1 + (PATIENCE if self.skip else 0))
            taken = next(
                (i % len(self.source) for i in tried if crops.take(i % len(self.source), slot, draws[slot])), None
            )
            if taken is None:
                return crops.failure()
            images[slot] = taken
        missing = int((images != indices.images).sum())
        jitter = torch.from_numpy(self.photometric.draw_jitter(draws[:, -COLOUR_DRAWS:]))
        return Group(crops.batch, torch.from_numpy(self.source.labels[images]), jitter, crops.report(missing))


class EvalGroups(Dataset[Group | Unreadable]):
    """Evaluation blocks of `largest` images at most.

    Where `skip` is set, images that cannot be read are left out, if no more than PATIENCE follow one another.
    """

    def __init__(self, source: Source, transform: EvalTransform, largest: int, skip: bool = False) -> None:
        self.source, self.transform, self.skip = source, transform, skip
        self._batches = Batches(transform.size, largest)

    def __getitem__(self, indices: Indices) -> Group | Unreadable:
        crops = _Crops(self.source, self.transform, self._batches.next(len(indices.images)))
        images: list[int] = []
        in_a_row = 0
        for image in indices.images.tolist():
            if crops.take(image, len(images), NO_DRAWS):
                images.append(image)
                in_a_row = 0
                continue
            in_a_row += 1
            if not self.skip or in_a_row > PATIENCE:
                return crops.failure()
        labels = torch.from_numpy(self.source.labels[images])
        missing = len(indices.images) - len(images)
        return Group(crops.batch[: len(images)], labels, None, crops.report(missing))


class Batches:
    """Batches to fill: of new memory, but in a loader process of shared memory that is filled over and over.

    Handing over shared memory copies nothing, but to make some takes the system longer than to copy it: where images
    are not decoded, as long as all else. So a loader process has SHARED batches, and uses each again when the training
    process must be done with it. DataLoader sees to that: a process has AHEAD groups to make at most, and is given
    another one only when the training process receives the oldest of them. By the time that a process begins its group
    n, the training process has received its group n - AHEAD and asked for what comes after n - AHEAD - 1. So a group
    holds at least until the training process has asked for the next but one, even with a single loader process.
    """

    def __init__(self, size: int, largest: int) -> None:
        self._size, self._largest, self._turn = size, largest, 0
        self._shared: list[Tensor | None] = [None] * SHARED

    def next(self, count: int) -> Tensor:
        """An uninitialised uint8 batch (count, 3, size, size) in channels-last memory; `count` is `largest` at most."""
        if get_worker_info() is None:
            return empty_batch(count, self._size, shared=False)
        self._turn = (self._turn + 1) % len(self._shared)
        batch = self._shared[self._turn]
        if batch is None:
            batch = self._shared[self._turn] = empty_batch(self._largest, self._size, shared=True)
        return batch[:count]


class _Crops:
    """A batch that is filled crop by crop; notes the time taken and what could not be read."""

    def __init__(self, source: Source, transform: Transform, batch: Tensor) -> None:
        self._source, self._transform, self.batch = source, transform, batch
        self.unreadable: list[str] = []
        self._read = self._decode = self._resize = 0.0

    def take(self, image: int, slot: int, draws: NDArray[np.float64]) -> bool:
        """Put the crop of image number `image` into place `slot`; False if it cannot be read."""
        asked = time.perf_counter()
        try:
            picture = self._source.picture(image)
            opened = time.perf_counter()
            pixels = self._transform.read(picture, draws)
        except (BadImageError, OSError) as error:
            if isinstance(error, OSError) and error.errno not in _OF_ONE_FILE:
                raise LocalInputError(f"{self._source.name(image)} cannot be read: {error}") from error
            reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            self.unreadable.append(printable(f"{self._source.name(image)} cannot be read: {reason}"))
            return False
        decoded = time.perf_counter()
        self.batch[slot] = self._transform.crop(pixels, draws)
        self._read += opened - asked
        self._decode += decoded - opened
        self._resize += time.perf_counter() - decoded
        return True

    def report(self, missing: int) -> Report:
        """What was noted, where so many of the images asked for are `missing`."""
        return Report(self._read, self._decode, self._resize, missing, tuple(self.unreadable))

    def failure(self) -> Unreadable:
        """What is handed over in place of a group that could not be made."""
        more = len(self.unreadable) - 1
        others = f", and {more} others that were tried neither ({self.unreadable[0]})" if more else ""
        return Unreadable(self.unreadable[-1] + others)


PATIENCE = 16
"""Images in a row that may be skipped. More are no bad images, but a disk that is gone."""

_OF_ONE_FILE = (errno.ENOENT, errno.EIO, errno.EACCES, errno.EPERM, errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG)
"""Errors of a file. Others, such as too many open files, are of the process, and no reason to skip an image."""

AHEAD = 2
"""Groups that a loader process makes before they are asked for."""

SHARED = AHEAD + 2
"""Batches in shared memory that a loader process fills in turn."""
