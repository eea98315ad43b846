"""Groups of images from loader processes to the training process, already put together as whole uint8 tensors."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, UntypedStorage
from torch.utils.data import DataLoader, Dataset, get_worker_info

from resnext_train.data.jpeg import BadImageError
from resnext_train.data.photometric import Photometric
from resnext_train.data.randomness import uniforms
from resnext_train.data.sampler import Indices
from resnext_train.data.source import Source
from resnext_train.data.transforms import COLOUR_DRAWS, DRAWS, NO_DRAWS, EvalTransform, Transform, empty_batch
from resnext_train.errors import LocalInputError, printable
from resnext_train.signals import held_back, outlive_stop_signals


class Report(NamedTuple):
    """How the images of a group came about."""

    read: float
    """Seconds spent on reading files or records."""
    decode: float
    """Seconds spent on decoding."""
    resize: float
    """Seconds spent on cropping and resizing."""
    missing: int
    """Images that could not be read; others took their places, or in evaluation none."""
    unreadable: tuple[str, ...]
    """What could not be read, a sentence for each image that was tried."""

    @staticmethod
    def sum(reports: Sequence[Report]) -> Report:
        """The reports of several groups as one."""
        return Report(
            sum(r.read for r in reports),
            sum(r.decode for r in reports),
            sum(r.resize for r in reports),
            sum(r.missing for r in reports),
            tuple(told for r in reports for told in r.unreadable),
        )


_NOTHING_TOLD = Report(0.0, 0.0, 0.0, 0, ())


class Group(NamedTuple):
    """A BN group or an evaluation block: uint8 images (n, 3, S, S), labels (n,), colour draws (n, JITTER_FIELDS)."""

    images: Tensor
    labels: Tensor
    jitter: Tensor | None
    report: Report = _NOTHING_TOLD

    def to(self, device: torch.device) -> Group:
        """The same on `device`, without waiting for the copy."""
        jitter = None if self.jitter is None else self.jitter.to(device, non_blocking=True)
        images, labels = self.images.to(device, non_blocking=True), self.labels.to(device, non_blocking=True)
        return Group(images, labels, jitter, self.report)


class Unreadable(NamedTuple):
    """What a loader process hands over in place of a group with an image that cannot be read."""

    message: str


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


@dataclass(frozen=True)
class LoaderOptions:
    """Loader processes per training process, and whether their groups go through pinned memory."""

    workers: int
    pin_memory: bool


def groups_from(
    dataset: Dataset[Group | Unreadable], sampler: Iterable[Indices], options: LoaderOptions
) -> DataLoader[Group | Unreadable]:
    """A loader of one `Indices` at a time whose processes live as long as it does.

    It has a random generator of its own, because DataLoader would otherwise draw from the global one.
    """
    return DataLoader(
        dataset,
        batch_size=None,
        sampler=sampler,
        num_workers=options.workers,
        prefetch_factor=AHEAD if options.workers else None,
        persistent_workers=options.workers > 0,
        pin_memory=options.pin_memory,
        in_order=True,  # Batches builds on it
        generator=torch.Generator(),
        worker_init_fn=_begin,
    )


def _begin(worker: int) -> None:
    outlive_stop_signals()


def readable(loader: DataLoader[Group | Unreadable]) -> Iterator[Group]:
    """The groups of `loader`. Each holds until the next but one is asked for: then its memory may be filled again.

    Raises:
        LocalInputError: an image cannot be read; names it and says why.
    """
    received: dict[int, UntypedStorage] = {}
    with held_back():
        groups = iter(loader)
    for group in groups:
        if isinstance(group, Unreadable):
            raise LocalInputError(
                f"{group.message}; replace or remove it, or set data.on_bad_image=skip; "
                "`resnext-prepare check` lists all such files"
            )
        if group.images.is_shared():
            # This memory will come again. As long as it is kept here, torch need not map it anew.
            memory = group.images.untyped_storage()
            received[memory.data_ptr()] = memory
        yield group


def telling(groups: Iterable[Group], tell: Callable[[str], None]) -> Iterator[Group]:
    """`groups`; what could not be read is told, once each."""
    told: set[str] = set()
    for group in groups:
        for text in group.report.unreadable:
            if text not in told:
                told.add(text)
                tell(text)
        yield group


def on_device(groups: Iterable[Group], device: torch.device) -> Iterator[Group]:
    """`groups` on `device`; on a GPU each is copied while it still computes with the one before.

    The copy runs on a stream of its own, from pinned memory. The host waits for neither: it asks for the next group as
    soon as the work on this one is queued.
    """
    if device.type != "cuda":
        yield from groups
        return
    copies, current = torch.cuda.Stream(device), torch.cuda.current_stream(device)
    for group in groups:
        with torch.cuda.stream(copies):
            copied = group.to(device)
        current.wait_stream(copies)
        for tensor in (copied.images, copied.labels, copied.jitter):
            if tensor is not None:
                tensor.record_stream(current)  # its memory is not given away before the step is done with it
        yield copied
