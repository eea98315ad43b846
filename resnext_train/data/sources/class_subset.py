"""Some images of a source, or those of some classes, labelled by the network's classes."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resnext_train.data.decode.lazy_image import LazyImage
from resnext_train.data.sources.folder_scan import class_folders
from resnext_train.data.sources.image_source import ImageSource, decoded_pixels
from resnext_train.errors import InputError
from resnext_train.regular_file import read_regular

_MAX_BYTES = 10_000_000
"""Largest file of class names; ImageNet-22K's has less than 1 MB."""


class ImageSubset:
    """The images of `source` with these numbers, in this order."""

    def __init__(self, source: ImageSource, images: NDArray[np.int64]) -> None:
        self.classes, self.storage = source.classes, source.storage
        self.labels: NDArray[np.int64] = source.labels[images]
        self._source, self._images = source, images

    def __reduce__(self) -> tuple[type[ImageSubset], tuple[ImageSource, Any]]:
        return ImageSubset, (self._source, self._images)

    def __len__(self) -> int:
        return len(self.labels)

    def name(self, i: int) -> str:
        return self._source.name(int(self._images[i]))

    def image(self, i: int) -> LazyImage:
        return self._source.image(int(self._images[i]))

    def pixels(self, images: NDArray[np.int64]) -> NDArray[np.uint8] | None:
        return decoded_pixels(self._source, self._images[images])


class ClassImages(ImageSubset):
    """The images of `source` whose class is in `classes`, in the source's order, labelled by position in `classes`."""

    def __init__(self, source: ImageSource, classes: tuple[str, ...]) -> None:
        position = {name: i for i, name in enumerate(classes)}
        labels = np.array([position.get(name, -1) for name in source.classes], np.int64)[source.labels]
        super().__init__(source, np.flatnonzero(labels >= 0))
        self.classes, self.labels = classes, labels[self._images]

    def __reduce__(self) -> tuple[type[ClassImages], tuple[ImageSource, Any]]:
        return ClassImages, (self._source, self.classes)  # the numbers and labels of all images are soon found again


def read_class_names(path: Path, what: str) -> list[str]:
    """Read class names from a text file, one per line, or take the names of a folder's class folders.

    Blank lines and space around a name are ignored. `what` is the key or option that gave the path, for messages.

    Raises:
        InputError: the file or folder is missing, cannot be read, names no class, or names one twice.
    """
    try:
        names = class_folders(path) if path.is_dir() else _lines(path)
    except FileNotFoundError as error:
        raise InputError(f"{what}: {path} not found; give a file of class names, or a folder") from error
    except OSError as error:
        raise InputError(f"{what}: {path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{what}: {path} is not a text file in UTF-8") from error
    if not names:
        raise InputError(f"{what}: {path} names no class; give one class name per line, or one folder per class")
    name, times = Counter(names).most_common(1)[0]
    if times > 1:
        raise InputError(f"{what}: {path} names the class {name} {times} times; name it once")
    return names


def _lines(path: Path) -> list[str]:
    # Not splitlines, which also splits at Unicode's line separators; -sig drops the BOM that Windows writes.
    lines = re.split("\r\n|\r|\n", read_regular(path, _MAX_BYTES).decode("utf-8-sig"))
    return [line.strip() for line in lines if line.strip()]
