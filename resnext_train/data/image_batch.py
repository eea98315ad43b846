"""What a loader process hands to the training process: a whole batch, or the image that cannot be read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class LoadReport(NamedTuple):
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
    def sum(reports: Sequence[LoadReport]) -> LoadReport:
        """The reports of several groups as one."""
        return LoadReport(
            sum(r.read for r in reports),
            sum(r.decode for r in reports),
            sum(r.resize for r in reports),
            sum(r.missing for r in reports),
            tuple(told for r in reports for told in r.unreadable),
        )


_NOTHING_TOLD = LoadReport(0.0, 0.0, 0.0, 0, ())


class ImageBatch(NamedTuple):
    """A BN group or an evaluation block: uint8 images (n, 3, S, S), labels (n,), colour draws (n, JITTER_FIELDS)."""

    images: Tensor
    labels: Tensor
    jitter: Tensor | None
    report: LoadReport = _NOTHING_TOLD

    def to(self, device: torch.device) -> ImageBatch:
        """The same on `device`, without waiting for the copy."""
        jitter = None if self.jitter is None else self.jitter.to(device, non_blocking=True)
        images, labels = self.images.to(device, non_blocking=True), self.labels.to(device, non_blocking=True)
        return ImageBatch(images, labels, jitter, self.report)


class UnreadableImage(NamedTuple):
    """What a loader process hands over in place of a group with an image that cannot be read."""

    message: str
