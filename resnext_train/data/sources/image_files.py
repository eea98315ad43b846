"""Image files that a user lists: by their paths, by folders, by patterns, or as a list of paths in a stream."""

from __future__ import annotations

import glob
import os
import re
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torchvision.datasets.folder import IMG_EXTENSIONS

from resnext_train.data.decode.lazy_image import LazyImage, open_image
from resnext_train.data.sources.folder_scan import folders_that_hold, is_folder, is_image
from resnext_train.data.sources.image_folder import MAX_BYTES
from resnext_train.data.sources.image_source import FILES
from resnext_train.errors import InputError
from resnext_train.regular_file import read_regular

STREAM = "-"
"""Stands for a list of paths in a stream."""

_MAGIC = re.compile(r"[*?[]")


class ImageFiles:
    """Files without labels, in the order given; all labels are 0. A path takes its bytes and eight more."""

    storage = FILES
    classes: tuple[str, ...] = ("",)

    def __init__(self, paths: Iterable[bytes]) -> None:
        joined, ends = bytearray(), array("q")
        for path in paths:
            joined += path
            ends.append(len(joined))
        self._use(np.array(joined, np.uint8), np.array(ends, np.int64))

    def _use(self, paths: NDArray[np.uint8], ends: NDArray[np.int64]) -> None:
        self._paths, self._ends = paths, ends
        self.labels: NDArray[np.int64] = np.broadcast_to(np.int64(0), len(ends))  # takes no memory

    def __getstate__(self) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        return self._paths, self._ends

    def __setstate__(self, state: tuple[NDArray[np.uint8], NDArray[np.int64]]) -> None:
        self._use(*state)

    def __len__(self) -> int:
        return len(self._ends)

    def name(self, i: int) -> str:
        start = int(self._ends[i - 1]) if i else 0
        return os.fsdecode(self._paths[start : int(self._ends[i])].tobytes())

    def image(self, i: int) -> LazyImage:
        return open_image(read_regular(self.name(i), MAX_BYTES))


def find_images(words: Sequence[str], read_stream: Callable[[], bytes]) -> tuple[ImageFiles, list[str]]:
    """Return the images that `words` name, in their order, and a sentence for each word that names none.

    A word is a file; a folder, whose images at any depth are taken by path, without hidden ones; a pattern with *, ? or
    [ that names no file, where ** means any depth; or STREAM, for the paths of files and folders in `read_stream()`: a
    line each, or between zero bytes if there are any. A file that is named itself is taken whatever its ending.

    What cannot be found or read is among the images, so that it is missed when it is read.

    Raises:
        InputError: there is no image.
    """
    notes: list[str] = []
    images = ImageFiles(path for word in words for path in _paths(word, read_stream, notes))
    if not len(images):
        raise InputError(f"there is no image to classify: {'; '.join(notes)}")
    return images, notes


def _paths(word: str, read_stream: Callable[[], bytes], notes: list[str]) -> Iterator[bytes]:
    """Yield the images that a word names; note it if there are none."""
    if word == STREAM:
        content = read_stream()
        listed = content.split(b"\0") if b"\0" in content else [p.removesuffix(b"\r") for p in content.split(b"\n")]
        found, why_none = [os.fsdecode(path) for path in listed if path], "the list of paths is empty"
    elif _MAGIC.search(word) and not os.path.lexists(word):
        found, why_none = _matching(word), f"nothing matches {word}"
    else:
        found, why_none = [word], ""
    if not found:
        notes.append(why_none)
    for path in found:
        if not os.path.isdir(path):  # noqa: PTH112
            yield os.fsencode(path)
            continue
        images = _below(path)
        first = next(images, None)
        if first is None:
            notes.append(f"folder {path} holds no image ({', '.join(IMG_EXTENSIONS)})")
            continue
        yield first
        yield from images


def _matching(pattern: str) -> list[str]:
    """Return what matches a pattern, sorted; of one with **, which has matched what folders hold, only files."""
    found = sorted(glob.iglob(pattern, recursive=True))  # noqa: PTH207  it may be any text
    if "**" not in pattern:
        return found
    once: dict[tuple[str, str], str] = {}  # by the real folder: ** follows links, which may lead back into the tree
    for path in sorted(found, key=len):
        if not os.path.isdir(os.path.realpath(path)):  # noqa: PTH112  of a long path, as through a link again and again
            folder, name = os.path.split(path)
            once.setdefault((os.path.realpath(folder), name), path)
    return sorted(once.values())


def _below(top: str) -> Iterator[bytes]:
    """Yield the images in a folder at any depth, sorted by path, each folder once: links may lead back into the tree.

    Links to folders that hold it are not followed. A folder that cannot be read is yielded in the place of its images.
    """
    seen = folders_that_hold(Path(top).parent)
    rest = [(top, True)]
    while rest:
        path, is_a_folder = rest.pop()
        if not is_a_folder:
            yield os.fsencode(path)
            continue
        try:
            state = os.stat(path)  # noqa: PTH116  without a Path: faster
            if (state.st_dev, state.st_ino) in seen:
                continue
            seen.add((state.st_dev, state.st_ino))
            with os.scandir(path) as entries:
                inside = [(e.name, is_folder(e)) for e in entries if not e.name.startswith(".")]
        except OSError:
            yield os.fsencode(path)
            continue
        kept = ((name, folder) for name, folder in inside if folder or is_image(name))
        rest += [(os.path.join(path, name), folder) for name, folder in sorted(kept, reverse=True)]  # noqa: PTH118
