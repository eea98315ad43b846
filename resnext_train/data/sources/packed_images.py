"""Images from a pack; see pack_format.py."""

from __future__ import annotations

import functools
import warnings
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from resnext_train.data.decode.image_limits import check_size
from resnext_train.data.decode.lazy_image import DecodedImage, LazyImage, open_image
from resnext_train.data.pack.pack_format import PIXELS
from resnext_train.data.pack.pack_index import PackIndex
from resnext_train.data.sources.image_source import Storage


class PackedImages:
    """All images of a pack, in the order of the folder that was packed.

    Raises:
        InputError: no pack, or a damaged one.
    """

    def __init__(self, root: Path) -> None:
        self._use(PackIndex(root))

    def _use(self, index: PackIndex) -> None:
        self._index = index
        self.classes: tuple[str, ...] = index.classes
        self.labels: NDArray[np.int64] = index.label
        self.storage = _storage(index)

    def __getstate__(self) -> PackIndex:
        return self._index  # all else is part of it

    def __setstate__(self, index: PackIndex) -> None:
        self._use(index)

    def __len__(self) -> int:
        return len(self._index)

    def name(self, i: int) -> str:
        return f"{self._index.path}: {self._index.name(i)}"

    def image(self, i: int) -> LazyImage:
        if self._index.kind[i] == PIXELS:
            pixels = self._index.pixels(i)
            check_size(pixels.shape[0], pixels.shape[1])
            _accept_read_only_memory()
            return DecodedImage(torch.from_numpy(pixels).permute(2, 0, 1))
        return open_image(self._index.read(i))


@functools.cache
def _accept_read_only_memory() -> None:
    """Trigger torch's warning about read-only memory, which it gives once per process, where nobody sees it."""
    array = np.zeros(1, np.uint8)
    array.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.from_numpy(array)


def _storage(index: PackIndex) -> Storage:
    if index.tier == "exact":
        return Storage("exact", "packed in tier exact (lossless)")
    size = f"resized to a short side of at most {index.settings['size']}"
    if index.tier == "raw":
        return Storage("raw", f"packed in tier raw (lossy: {size})")
    return Storage("resized", f"packed in tier resized (lossy: {size}, JPEG quality {index.settings['quality']})")
