"""Make the batches of an evaluation: all views of some images, those of one shape side by side."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, get_worker_info

from resnext_train.data.batch_datasets import SHARED_BUFFERS, Unreadable
from resnext_train.data.decode.jpeg_header import BadImageError
from resnext_train.data.image_batch import LoadReport, UnreadableImage
from resnext_train.data.sampler import BatchIndices
from resnext_train.data.sources.image_source import ImageSource, decoded_pixels
from resnext_train.data.transforms.eval_views import EvalViews, read_whole


class ViewGroup(NamedTuple):
    """The views of one shape in a batch, which a forward pass can take at once."""

    start: int
    """Where their pixels begin in those of the batch."""
    height: int
    width: int
    rows: tuple[int, ...]
    """The image of each, by position in the batch."""
    views: tuple[int, ...]
    """Which view of its image each is."""


class EvalBatch(NamedTuple):
    """Views of n images that could be read."""

    pixels: Tensor
    """uint8 (bytes,): the views (height, width, 3), group by group."""
    groups: tuple[ViewGroup, ...]
    numbers: NDArray[np.int64]
    """Which images of the source they are, (n,)."""
    labels: Tensor
    """int64 (n,)."""
    report: LoadReport

    @property
    def asked(self) -> int:
        """Number of images that were to be evaluated, those that could not be read included."""
        return len(self.numbers) + self.report.missing

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        return self.pixels, self.labels

    def images(self, group: ViewGroup) -> Tensor:
        """Return the views of a group, uint8 (k, 3, height, width), channels-last, without a copy."""
        count = len(group.rows)
        flat = self.pixels.narrow(0, group.start, count * group.height * group.width * 3)
        return flat.view(count, group.height, group.width, 3).permute(0, 3, 1, 2)

    def to(self, device: torch.device) -> EvalBatch:
        """Start the copy to `device` and return the batch there, without waiting."""
        pixels, labels = (tensor.to(device, non_blocking=True) for tensor in self.tensors)
        return self._replace(pixels=pixels, labels=labels)


class EvalBatches(Dataset[EvalBatch | UnreadableImage]):
    """Evaluation batches of `largest` images at most.

    Images that cannot be read are left out, if at most `skipped` of them follow one another: by default none.
    """

    def __init__(self, source: ImageSource, views: EvalViews, largest: int, skipped: float = 0) -> None:
        self.source, self.views, self.skipped = source, views, skipped
        self._buffers = _ViewBuffers(3 * largest * views.usual_pixels)

    def __getitem__(self, indices: BatchIndices) -> EvalBatch | UnreadableImage:
        return self._decoded(indices.images) or self._read(indices.images)

    def _decoded(self, images: NDArray[np.int64]) -> EvalBatch | None:
        """Return the batch of images that are decoded already, if they are their own views."""
        started = time.perf_counter()
        pixels = decoded_pixels(self.source, images)
        if pixels is None or not self.views.are_pixels(pixels):
            return None
        count, height, width, _ = pixels.shape
        flat = self._buffers.next(pixels.size)
        flat.copy_(torch.from_numpy(pixels.reshape(-1)))
        group = ViewGroup(0, height, width, tuple(range(count)), (0,) * count)
        report = LoadReport(0.0, 0.0, time.perf_counter() - started, 0, ())
        return EvalBatch(flat, (group,), images, self._labels(images), report)

    def _read(self, images: NDArray[np.int64]) -> EvalBatch | UnreadableImage:
        unreadable = Unreadable(self.source)
        read: list[int] = []
        views: list[list[Tensor]] = []
        seconds = np.zeros(3)
        in_a_row = 0
        for i in images.tolist():
            times = [time.perf_counter()]
            try:
                image = self.source.image(i)
                times.append(time.perf_counter())
                self.views.check(image.height, image.width)
                pixels = read_whole(image)
            except (BadImageError, OSError) as error:
                unreadable.note(i, error)
                in_a_row += 1
                if in_a_row > self.skipped:
                    return unreadable.failure()
                continue
            times.append(time.perf_counter())
            views.append(self.views.of(pixels))
            times.append(time.perf_counter())
            seconds += np.diff(times)
            read.append(i)
            in_a_row = 0
        started = time.perf_counter()
        pixels, groups = self._side_by_side(views)
        seconds[2] += time.perf_counter() - started
        read_in, decoded_in, resized_in = seconds.tolist()
        missing = len(images) - len(read)
        report = LoadReport(read_in, decoded_in, resized_in, missing, tuple(unreadable.messages))
        numbers = np.array(read, np.int64)
        return EvalBatch(pixels, groups, numbers, self._labels(numbers), report)

    def _labels(self, images: NDArray[np.int64]) -> Tensor:
        return torch.from_numpy(self.source.labels[images])

    def _side_by_side(self, views: Sequence[Sequence[Tensor]]) -> tuple[Tensor, tuple[ViewGroup, ...]]:
        """Copy the views of each image to one buffer, those of one shape one after another."""
        places: dict[tuple[int, ...], list[tuple[int, int]]] = {}
        for row, of_image in enumerate(views):
            for view, pixels in enumerate(of_image):
                places.setdefault(tuple(pixels.shape[1:]), []).append((row, view))
        flat = self._buffers.next(sum(pixels.numel() for of_image in views for pixels in of_image))
        groups: list[ViewGroup] = []
        start = 0
        for (height, width), place in places.items():
            size = len(place) * height * width * 3
            slots = flat.narrow(0, start, size).view(len(place), height, width, 3)
            for slot, (row, view) in zip(slots, place, strict=True):
                slot.copy_(views[row][view].permute(1, 2, 0))
            rows, numbers = zip(*place, strict=True)
            groups.append(ViewGroup(start, height, width, rows, numbers))
            start += size
        return flat, tuple(groups)


class _ViewBuffers:
    """Memory to fill with views; in a loader process, shared memory in turns, as `BatchBuffers`, which says why.

    It is reserved for a batch of images of the usual shape, and grows where a batch has more pixels.
    """

    def __init__(self, usual: int) -> None:
        self._usual, self._turn = usual, 0
        self._shared: list[Tensor | None] = [None] * SHARED_BUFFERS

    def next(self, size: int) -> Tensor:
        """Return `size` bytes of uninitialised memory, a uint8 vector."""
        if get_worker_info() is None:
            return torch.empty(size, dtype=torch.uint8)
        self._turn = (self._turn + 1) % len(self._shared)
        buffer = self._shared[self._turn]
        if buffer is None or len(buffer) < size:
            # By half more than is needed: the training process keeps all that it was ever given.
            reserved = self._usual if size <= self._usual else size + size // 2
            buffer = self._shared[self._turn] = torch.empty(reserved, dtype=torch.uint8).share_memory_()
        return buffer[:size]
