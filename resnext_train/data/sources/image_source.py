"""The interface of labelled images, however they are stored."""

from __future__ import annotations

from typing import Literal, NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from resnext_train.data.decode.lazy_image import LazyImage


class Storage(NamedTuple):
    """How images are stored."""

    kind: Literal["folder", "exact", "resized", "raw", "memory"]
    """As files, in a pack of one of three tiers, or in memory."""
    text: str


FILES = Storage("folder", "files")
MEMORY = Storage("memory", "in memory")


class ImageSource(Protocol):
    """Labelled images, by number. Labels are positions in `classes`."""

    classes: tuple[str, ...]
    labels: NDArray[np.int64]
    storage: Storage

    def __len__(self) -> int: ...

    def name(self, i: int) -> str:
        """Return what messages call image `i`: its path where it has one."""

    def image(self, i: int) -> LazyImage:
        """Open image `i`; raise BadImageError or OSError if it cannot be read."""


@runtime_checkable
class DecodedImages(Protocol):
    """A source whose images may all be decoded already, in one size."""

    def pixels(self, images: NDArray[np.int64]) -> NDArray[np.uint8] | None:
        """Return the pixels (n, height, width, 3) of n images, by number; None where they are not decoded."""


def decoded_pixels(source: ImageSource, images: NDArray[np.int64]) -> NDArray[np.uint8] | None:
    """Return the pixels (n, height, width, 3) of n images of any source, or None if they must be opened one by one."""
    return source.pixels(images) if isinstance(source, DecodedImages) else None
