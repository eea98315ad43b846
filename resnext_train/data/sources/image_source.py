"""What labelled images look like to all that comes after them, wherever they are kept."""

from __future__ import annotations

from typing import Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from resnext_train.data.decode.lazy_image import LazyImage


class Storage(NamedTuple):
    """How images are kept."""

    kind: Literal["folder", "exact", "resized", "raw", "memory"]
    """As files, in a pack of one of three tiers, or in memory."""
    text: str
    """The same for people."""


FILES = Storage("folder", "files")
MEMORY = Storage("memory", "in memory")


class Source(Protocol):
    """Labelled images, by number. Labels are positions in `classes`."""

    classes: tuple[str, ...]
    labels: NDArray[np.int64]
    storage: Storage

    def __len__(self) -> int:
        """Number of images."""

    def name(self, i: int) -> str:
        """What image `i` is called in messages: its path."""

    def image(self, i: int) -> LazyImage:
        """Image `i`; raises BadImageError or OSError where it cannot be read."""
