"""Batches made image by image in a loader process: read, decode, crop, into reused shared memory."""

from __future__ import annotations

import errno
import time

import torch
from torch import Tensor
from torch.utils.data import Dataset, get_worker_info

from resnext_train.data.decode.jpeg_header import BadImageError
from resnext_train.data.image_batch import ImageBatch, LoadReport, UnreadableImage
from resnext_train.data.sampler import BatchIndices
from resnext_train.data.sources.image_source import Source
from resnext_train.data.transforms.color_transform import ColorTransform
from resnext_train.data.transforms.crop_transforms import CropTransform, EvalTransform
from resnext_train.data.transforms.random_draws import NO_DRAWS, CropDraws, image_draws
from resnext_train.errors import LocalInputError, printable


def empty_batch(count: int, size: int, shared: bool) -> Tensor:
    """An uninitialised uint8 batch (count, 3, size, size), channels-last, in memory that is `shared` or not."""
    memory = torch.empty(count, size, size, 3, dtype=torch.uint8)
    return (memory.share_memory_() if shared else memory).permute(0, 3, 1, 2)


class TrainBatches(Dataset[ImageBatch | UnreadableImage]):
    """Augmented groups; how an image is augmented is a function of (seed, epoch, image).

    Where `skip` is set, an image that cannot be read is replaced by the next one that can, if that is among the next
    PATIENCE. `largest` is the size of the largest group.
    """

    def __init__(
        self,
        source: Source,
        transform: CropTransform,
        color_transform: ColorTransform,
        seed: int,
        largest: int,
        skip: bool = False,
    ) -> None:
        self.source, self.transform, self.color_transform = source, transform, color_transform
        self.seed, self.skip = seed, skip
        self._batches = BatchBuffers(transform.size, largest)

    def __getitem__(self, indices: BatchIndices) -> ImageBatch | UnreadableImage:
        crop_draws, color_draws = image_draws(self.seed, indices.epoch, indices.images)
        crops = _Crops(self.source, self.transform, self._batches.next(len(indices.images)))
        images = indices.images.copy()
        for slot, wanted in enumerate(images.tolist()):
            tried = range(wanted, wanted + 1 + (PATIENCE if self.skip else 0))
            taken = next(
                (i % len(self.source) for i in tried if crops.take(i % len(self.source), slot, crop_draws[slot])), None
            )
            if taken is None:
                return crops.failure()
            images[slot] = taken
        missing = int((images != indices.images).sum())
        jitter = torch.from_numpy(self.color_transform.draw_jitter(color_draws))
        return ImageBatch(crops.batch, torch.from_numpy(self.source.labels[images]), jitter, crops.report(missing))


class EvalBatches(Dataset[ImageBatch | UnreadableImage]):
    """Evaluation blocks of `largest` images at most.

    Where `skip` is set, images that cannot be read are left out, if no more than PATIENCE follow one another.
    """

    def __init__(self, source: Source, transform: EvalTransform, largest: int, skip: bool = False) -> None:
        self.source, self.transform, self.skip = source, transform, skip
        self._batches = BatchBuffers(transform.size, largest)

    def __getitem__(self, indices: BatchIndices) -> ImageBatch | UnreadableImage:
        crops = _Crops(self.source, self.transform, self._batches.next(len(indices.images)))
        images: list[int] = []
        in_a_row = 0
        for number in indices.images.tolist():
            if crops.take(number, len(images), NO_DRAWS):
                images.append(number)
                in_a_row = 0
                continue
            in_a_row += 1
            if not self.skip or in_a_row > PATIENCE:
                return crops.failure()
        labels = torch.from_numpy(self.source.labels[images])
        missing = len(indices.images) - len(images)
        return ImageBatch(crops.batch[: len(images)], labels, None, crops.report(missing))


class BatchBuffers:
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

    def __init__(self, source: Source, transform: CropTransform, batch: Tensor) -> None:
        self._source, self._transform, self.batch = source, transform, batch
        self.unreadable: list[str] = []
        self._read = self._decode = self._resize = 0.0

    def take(self, number: int, slot: int, draws: CropDraws) -> bool:
        """Put the crop of image number `number` into place `slot`; False if it cannot be read."""
        asked = time.perf_counter()
        try:
            image = self._source.image(number)
            opened = time.perf_counter()
            pixels = self._transform.read(image, draws)
        except (BadImageError, OSError) as error:
            if isinstance(error, OSError) and error.errno not in _OF_ONE_FILE:
                raise LocalInputError(f"{self._source.name(number)} cannot be read: {error}") from error
            reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            self.unreadable.append(printable(f"{self._source.name(number)} cannot be read: {reason}"))
            return False
        decoded = time.perf_counter()
        self.batch[slot] = self._transform.crop(pixels, draws)
        self._read += opened - asked
        self._decode += decoded - opened
        self._resize += time.perf_counter() - decoded
        return True

    def report(self, missing: int) -> LoadReport:
        """What was noted, where so many of the images asked for are `missing`."""
        return LoadReport(self._read, self._decode, self._resize, missing, tuple(self.unreadable))

    def failure(self) -> UnreadableImage:
        """What is handed over in place of a group that could not be made."""
        more = len(self.unreadable) - 1
        others = f", and {more} others that were tried neither ({self.unreadable[0]})" if more else ""
        return UnreadableImage(self.unreadable[-1] + others)


PATIENCE = 16
"""Images in a row that may be skipped. More are no bad images, but a disk that is gone."""

_OF_ONE_FILE = (errno.ENOENT, errno.EIO, errno.EACCES, errno.EPERM, errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG)
"""Errors of a file. Others, such as too many open files, are of the process, and no reason to skip an image."""

AHEAD = 2
"""Groups that a loader process makes before they are asked for."""

SHARED = AHEAD + 2
"""Batches in shared memory that a loader process fills in turn."""
