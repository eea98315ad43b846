"""Images in a folder per class, scanned once: the list of files is cached and memory-mapped.

The cache lives outside the data folder, which may be read-only: under $XDG_CACHE_HOME/resnext-train (or
~/.cache/resnext-train). It is used as long as no folder of the tree has changed, and costs no memory per worker.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torchvision.datasets.folder import IMG_EXTENSIONS

from resnext_train.data.decode.lazy_image import LazyImage, open_image
from resnext_train.data.sources.image_source import FILES
from resnext_train.errors import InputError, printable

_VERSION = 1
_SETTLED = 2.0
"""Seconds that a folder must have been still before its list is cached: a later change in the same tick of the file
system's clock would go unseen."""


class ImageFolder:
    """All images under root/CLASS/..., in order of class and path; class names are the folders' names, sorted.

    Raises:
        InputError: a missing folder, no class folders, or a class folder without images.
    """

    storage = FILES

    def __init__(self, root: Path) -> None:
        self.root = root
        index = _cached_index(root) or _scan_and_cache(root)
        self.classes: tuple[str, ...] = tuple(index.classes)
        self.labels: NDArray[np.int64] = index.labels
        self._paths, self._ends = index.paths, index.ends

    def __len__(self) -> int:
        return len(self.labels)

    def name(self, i: int) -> str:
        """Path of image `i`, for messages."""
        start = int(self._ends[i - 1]) if i else 0
        return str(self.root / os.fsdecode(self._paths[start : int(self._ends[i])].tobytes()))

    def image(self, i: int) -> LazyImage:
        """Image `i`; raises BadImageError or OSError where it cannot be read."""
        return open_image(Path(self.name(i)).read_bytes())


class _Index:
    """File list as arrays: relative paths as one run of bytes with the end of each, labels, class names."""

    def __init__(
        self, classes: list[str], paths: NDArray[np.uint8], ends: NDArray[np.int64], labels: NDArray[np.int64]
    ) -> None:
        self.classes, self.paths, self.ends, self.labels = classes, paths, ends, labels


def _scan_and_cache(root: Path) -> _Index:
    started = time.time()
    index, folders = _scan(root)
    newest = max(stamp for stamp in folders.values()) / 1e9
    if newest < started - _SETTLED:
        try:
            _store(root, index, folders)
        except OSError as error:
            warnings.warn(
                printable(f"the list of files of {root} could not be cached ({error}); it is made anew each time"),
                stacklevel=2,
            )
    return index


def _scan(root: Path) -> tuple[_Index, dict[str, int]]:
    """The index of `root`, and the modification time (ns) of every folder below it by relative path."""
    if not root.is_dir():
        raise InputError(f"data folder {root} not found; set data.root to a folder that holds train/ and val/")
    folders = {".": root.stat().st_mtime_ns}
    classes = class_folders(root)
    if not classes:
        loose = sum(_is_image(entry.name) for entry in os.scandir(root))
        found = (
            f"{loose} images but no class folders; sort them into one folder per class" if loose else "no class folders"
        )
        raise InputError(f"{root} holds {found}")
    paths: list[bytes] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        files = sorted(_images_below(root, name, folders))
        if not files:
            raise InputError(
                f"class folder {root / name} holds no images ({', '.join(IMG_EXTENSIONS)}); fill or remove it"
            )
        paths += files
        labels += [label] * len(files)
    ends = np.cumsum([len(path) for path in paths], dtype=np.int64)
    return _Index(classes, np.frombuffer(b"".join(paths), np.uint8), ends, np.array(labels, np.int64)), folders


def class_folders(root: Path) -> list[str]:
    """Names of the class folders in `root`, sorted; hidden folders are none. Raises OSError where it cannot be read."""
    return sorted(entry.name for entry in os.scandir(root) if entry.is_dir() and not entry.name.startswith("."))


def _images_below(root: Path, name: str, folders: dict[str, int]) -> list[bytes]:
    files = []
    for folder, _, names in os.walk(root / name, followlinks=True):
        relative = os.path.relpath(folder, root)
        folders[relative] = os.stat(folder).st_mtime_ns  # noqa: PTH116  as os.walk gives it
        files += [os.fsencode(f"{relative}/{file}") for file in names if _is_image(file)]
    return files


def _is_image(name: str) -> bool:
    return name.lower().endswith(IMG_EXTENSIONS) and not name.startswith(".")


def _cache_folder(root: Path) -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    key = hashlib.sha256(os.fsencode(root.resolve())).hexdigest()[:20]
    return Path(base) / "resnext-train" / "folders" / key


def _cached_index(root: Path) -> _Index | None:
    """The cached index if it is whole and no folder has changed since, else None."""
    cache = _cache_folder(root)
    try:
        meta = json.loads((cache / "meta.json").read_text())
        if meta["version"] != _VERSION:
            return None
        for folder, stamp in meta["folders"].items():
            if (root / folder).stat().st_mtime_ns != stamp:
                return None
        arrays = [np.load(cache / f"{name}.npy", mmap_mode="r") for name in ("paths", "ends", "labels")]
    except (OSError, EOFError, ValueError, KeyError, TypeError):
        return None  # absent, damaged or stale: the tree is scanned again
    return _Index(meta["classes"], *arrays)


def _store(root: Path, index: _Index, folders: dict[str, int]) -> None:
    """Write the index beside its place and move it there, so that no reader sees half of it."""
    cache = _cache_folder(root)
    cache.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(dir=cache.parent, prefix="new-"))
    for name, array in (("paths", index.paths), ("ends", index.ends), ("labels", index.labels)):
        np.save(fresh / f"{name}.npy", array)
    meta = {"version": _VERSION, "root": str(root.resolve()), "classes": index.classes, "folders": folders}
    (fresh / "meta.json").write_text(json.dumps(meta))
    stale = Path(tempfile.mkdtemp(dir=cache.parent, prefix="old-"))
    try:
        if cache.is_dir():
            cache.rename(stale / "index")
        fresh.rename(cache)
    except OSError:
        shutil.rmtree(fresh)  # another process was faster; its index is as good
    shutil.rmtree(stale)
