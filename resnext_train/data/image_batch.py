"""What a loader process passes to the training process: a whole batch, or the image that cannot be read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor


class LoadReport(NamedTuple):
    """How a batch was loaded."""

    read: float
    """Seconds spent on reading files or records."""
    decode: float
    resize: float
    missing: int
    """Images that could not be read: replaced by others in training, left out in evaluation."""
    unreadable: tuple[str, ...]
    """One sentence for each image that could not be read, replacements included."""
    operations: float = 0.0
    """Seconds spent on the operations of auto_augment."""

    @staticmethod
    def sum(reports: Sequence[LoadReport]) -> LoadReport:
        return LoadReport(
            sum(r.read for r in reports),
            sum(r.decode for r in reports),
            sum(r.resize for r in reports),
            sum(r.missing for r in reports),
            tuple(message for r in reports for message in r.unreadable),
            sum(r.operations for r in reports),
        )


Self = TypeVar("Self")


class Batch(Protocol):
    """What a `DeviceLoader` brings to the device: micro-batches, and batches of an evaluation."""

    @property
    def pixels(self) -> Tensor:
        """Return the tensor whose memory a loader process may have shared."""

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """Return all tensors."""

    @property
    def report(self) -> LoadReport: ...

    def to(self: Self, device: torch.device) -> Self:
        """Start the copy to `device` and return the batch there, without waiting."""


_NOTHING_REPORTED = LoadReport(0.0, 0.0, 0.0, 0, ())


class ImageBatch(NamedTuple):
    """A micro-batch: uint8 images (n, 3, S, S), labels (n,), colour maps (n, MAP_ROWS, 3) or None.

    Where there are none, images are only normalised.
    """

    images: Tensor
    labels: Tensor
    color_maps: Tensor | None
    report: LoadReport = _NOTHING_REPORTED
    erase_boxes: Tensor | None = None
    """Boxes to erase, (n, count, 4), see erase.py; None: none in any image."""

    @property
    def pixels(self) -> Tensor:
        return self.images

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        every = (self.images, self.labels, self.color_maps, self.erase_boxes)
        return tuple(tensor for tensor in every if tensor is not None)

    def map(self, change: Callable[[Tensor], Tensor]) -> ImageBatch:
        """Return the batch with each of its tensors changed."""
        maps, boxes = self.color_maps, self.erase_boxes
        return self._replace(
            images=change(self.images),
            labels=change(self.labels),
            color_maps=None if maps is None else change(maps),
            erase_boxes=None if boxes is None else change(boxes),
        )

    def to(self, device: torch.device) -> ImageBatch:
        """Start the copy to `device` and return the batch there, without waiting."""
        return self.map(lambda tensor: tensor.to(device, non_blocking=True))


class UnreadableImage(NamedTuple):
    """Passed in place of a batch with an image that cannot be read."""

    message: str
    error_number: int | None = None
    """The errno of an error that concerns the process or the system, and not this image alone."""
