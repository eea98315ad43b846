"""Fill micro-batches image by image in a loader process (read, decode, crop), in reused shared memory."""

from __future__ import annotations

import errno
import time
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, get_worker_info

from resnext_train.data.decode.jpeg_header import BadImageError
from resnext_train.data.image_batch import ImageBatch, LoadReport, UnreadableImage
from resnext_train.data.sampler import BatchIndices
from resnext_train.data.sources.image_source import ImageSource, decoded_pixels
from resnext_train.data.transforms.augmentation import LoaderTransforms
from resnext_train.data.transforms.auto_augment import AugmentPolicy
from resnext_train.data.transforms.crop_transforms import CropTransform
from resnext_train.data.transforms.random_draws import CropDraws, OperationDraws, image_draws, operation_draws
from resnext_train.errors import printable

MAX_SKIPPED_IN_A_ROW = 16
"""Unreadable images in a row that may be skipped. More than these mean a lost disk, not bad images."""

_FILE_ERRORS = (
    *(errno.ENOENT, errno.EIO, errno.EACCES, errno.EPERM, errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG),
    *(errno.ENXIO, errno.ELOOP, errno.EFBIG),  # no regular file, a link to itself, more bytes than an image has
)
"""Errors that concern one file. Others, such as too many open files, concern the process: the image is not skipped."""

PREFETCH = 2
"""Batches that a loader process makes before they are asked for."""

SHARED_BUFFERS = PREFETCH + 2
"""Batches in shared memory that a loader process fills in turn; `BatchBuffers` says why this many."""


def empty_batch(count: int, size: int, shared: bool) -> Tensor:
    """Return an uninitialised uint8 batch (count, 3, size, size), channels-last, in shared memory if `shared`."""
    memory = torch.empty(count, size, size, 3, dtype=torch.uint8)
    return (memory.share_memory_() if shared else memory).permute(0, 3, 1, 2)


class TrainBatches(Dataset[ImageBatch | UnreadableImage]):
    """Augmented micro-batches of `largest` images at most; augmentation is a function of (seed, epoch, image) and of
    the image's repetition.

    With `skip`, an image that cannot be read is replaced by the first readable one of the next MAX_SKIPPED_IN_A_ROW.
    """

    def __init__(
        self, source: ImageSource, transforms: LoaderTransforms, seed: int, largest: int, skip: bool = False
    ) -> None:
        self.source, self.transforms = source, transforms
        self.seed, self.skip = seed, skip
        self._buffers = BatchBuffers(transforms.largest_crop, largest)

    def __getitem__(self, indices: BatchIndices) -> ImageBatch | UnreadableImage:
        epoch, requested_images, repetitions = indices
        transforms = self.transforms
        crop = transforms.crop_in(epoch)
        crop_draws, color_draws = image_draws(self.seed, epoch, requested_images, repetitions)
        maker = _BatchMaker(self.source, crop, self._buffers.next(len(requested_images), crop.size))
        images = requested_images.copy()
        for slot, requested in () if maker.load_decoded(images, crop_draws) else enumerate(images.tolist()):
            last = requested + (MAX_SKIPPED_IN_A_ROW if self.skip else 0)
            candidates = (i % len(self.source) for i in range(requested, last + 1))
            loaded = next((i for i in candidates if maker.load(i, slot, crop_draws[slot])), None)
            if loaded is None:
                return maker.unreadable.failure()
            images[slot] = loaded
        if policy := transforms.policy:
            maker.operate(policy, operation_draws(self.seed, epoch, requested_images, policy.num_ops, repetitions))
        missing = int((images != requested_images).sum())
        maps = transforms.color.draw_maps(color_draws)
        color_maps = None if maps is None else torch.from_numpy(maps)
        boxes = transforms.erasing.draw_boxes(self.seed, epoch, requested_images, repetitions, crop.size)
        labels = torch.from_numpy(self.source.labels[images])
        return ImageBatch(maker.batch, labels, color_maps, maker.report(missing), boxes)


class BatchBuffers:
    """Empty batches to fill; in a loader process, SHARED_BUFFERS batches in shared memory that are refilled in turn.

    Shared memory reaches the training process without a copy, but allocating it takes longer than the copy would; for
    images that need no decoding, as long as all other work. So it is allocated once and reused.

    Reuse is safe because DataLoader gives a loader process PREFETCH batches to make, and another one only when the
    training process receives the oldest. So when a loader process refills the memory of its batch n for its batch
    n + PREFETCH + 2, the training process has received its batch n + 2. A batch is thus intact until the training
    process asks for the next but one, even with a single loader process.
    """

    def __init__(self, size: int, largest: int) -> None:
        self._size, self._largest, self._turn = size, largest, 0
        self._shared: list[Tensor | None] = [None] * SHARED_BUFFERS

    def next(self, count: int, size: int | None = None) -> Tensor:
        """Return an uninitialised batch as `empty_batch` does.

        `count` is at most `largest`, and the images' `size` at most that of all buffers; None: just that.
        """
        size = size or self._size
        if get_worker_info() is None:
            return empty_batch(count, size, shared=False)
        self._turn = (self._turn + 1) % len(self._shared)
        memory = self._shared[self._turn]
        if memory is None:
            memory = torch.empty(self._largest * self._size**2 * 3, dtype=torch.uint8).share_memory_()
            self._shared[self._turn] = memory
        # Smaller images lie as closely, at the beginning.
        return memory[: count * size**2 * 3].view(count, size, size, 3).permute(0, 3, 1, 2)


def _sentence(name: str, reason: str) -> str:
    return printable(f"{name} cannot be read: {reason}")


def reason_in(sentence: str, name: str) -> str:
    """Return why the image `name` cannot be read, out of a sentence of `Unreadable` about it."""
    return sentence.removeprefix(_sentence(name, ""))


class Unreadable:
    """Notes which images of a batch could not be read, and why."""

    def __init__(self, source: ImageSource) -> None:
        self._source = source
        self.messages: list[str] = []
        """One sentence for each."""

    def note(self, i: int, error: BadImageError | OSError) -> None:
        """Note that image `i` could not be read.

        Raises:
            OSError: it is an error of the process or the system, not of this image, whose name is its `filename`.
        """
        if isinstance(error, OSError) and error.errno not in _FILE_ERRORS:
            raise OSError(error.errno, error.strerror or str(error), self._source.name(i)) from error
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        self.messages.append(_sentence(self._source.name(i), reason))

    def failure(self) -> UnreadableImage:
        """Return what is passed in place of the batch."""
        more = len(self.messages) - 1
        others = f", nor can the {more} others that were tried ({self.messages[0]})" if more else ""
        return UnreadableImage(self.messages[-1] + others)


class _BatchMaker:
    """Fills a micro-batch crop by crop; records the time taken and what could not be read."""

    def __init__(self, source: ImageSource, transform: CropTransform, batch: Tensor) -> None:
        self._source, self._transform, self.batch = source, transform, batch
        self.unreadable = Unreadable(source)
        self._read = self._decode = self._resize = self._operations = 0.0

    def load_decoded(self, images: NDArray[np.int64], draws: Sequence[CropDraws]) -> bool:
        """Write the crops of all `images` if they are decoded already and need no resizing; return whether."""
        started = time.perf_counter()
        pixels = decoded_pixels(self._source, images)
        if pixels is None or not self._transform.crop_decoded(pixels, draws, self.batch.permute(0, 2, 3, 1).numpy()):
            return False
        self._resize += time.perf_counter() - started
        return True

    def load(self, i: int, slot: int, draws: CropDraws) -> bool:
        """Write the crop of image `i` to `slot`; return False if the image cannot be read.

        Raises:
            OSError: see `Unreadable.note`.
        """
        started = time.perf_counter()
        try:
            image = self._source.image(i)
            opened = time.perf_counter()
            pixels = self._transform.read(image, draws)
        except (BadImageError, OSError) as error:
            self.unreadable.note(i, error)
            return False
        decoded = time.perf_counter()
        self.batch[slot] = self._transform.crop(pixels, draws)
        self._read += opened - started
        self._decode += decoded - opened
        self._resize += time.perf_counter() - decoded
        return True

    def operate(self, policy: AugmentPolicy, draws: OperationDraws) -> None:
        """Do the operations on all crops."""
        started = time.perf_counter()
        policy(self.batch.permute(0, 2, 3, 1).numpy(), draws)
        self._operations += time.perf_counter() - started

    def report(self, missing: int) -> LoadReport:
        unreadable = tuple(self.unreadable.messages)
        return LoadReport(self._read, self._decode, self._resize, missing, unreadable, self._operations)
