"""Images in one folder per class, scanned once: the list of files is cached and memory-mapped.

The cache is outside the data folder, which may be read-only: in $XDG_CACHE_HOME/resnext-train (or
~/.cache/resnext-train). It is valid until a folder of the tree changes, and costs no memory per worker.
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
"""Seconds that a folder must be unchanged before its list is cached: a later change in the same tick of the file
system's clock would go unnoticed."""


class ImageFolder:
    """All images under root/CLASS/..., by class and path; class names are the folders' names, sorted.

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
        start = int(self._ends[i - 1]) if i else 0
        return str(self.root / os.fsdecode(self._paths[start : int(self._ends[i])].tobytes()))

    def image(self, i: int) -> LazyImage:
        return open_image(Path(self.name(i)).read_bytes())


class _Index:
    """The file list as arrays: the bytes of all relative paths joined, the end of each path, and the labels."""

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
                printable(f"the list of files of {root} could not be cached ({error}); every run will rebuild it"),
                stacklevel=2,
            )
    return index


def _scan(root: Path) -> tuple[_Index, dict[str, int]]:
    """Return the index of `root`, and the modification time (ns) of every folder in it, by relative path."""
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
    """Return the sorted names of the class folders in `root`, without hidden ones; OSError if it cannot be read."""
    return sorted(entry.name for entry in os.scandir(root) if entry.is_dir() and not entry.name.startswith("."))


def _images_below(root: Path, name: str, folders: dict[str, int]) -> list[bytes]:
    files = []
    for folder, _, names in os.walk(root / name, followlinks=True):
        relative = os.path.relpath(folder, root)
        folders[relative] = os.stat(folder).st_mtime_ns  # noqa: PTH116  os.walk gives a str
        files += [os.fsencode(f"{relative}/{file}") for file in names if _is_image(file)]
    return files


def _is_image(name: str) -> bool:
    return name.lower().endswith(IMG_EXTENSIONS) and not name.startswith(".")


def _cache_folder(root: Path) -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    key = hashlib.sha256(os.fsencode(root.resolve())).hexdigest()[:20]
    return Path(base) / "resnext-train" / "folders" / key


def _cached_index(root: Path) -> _Index | None:
    """Return the cached index, or None if it is absent, incomplete, or older than a change of a folder."""
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
        return None
    return _Index(meta["classes"], *arrays)


def _store(root: Path, index: _Index, folders: dict[str, int]) -> None:
    """Write the index to a temporary folder and move it into place, so that no reader sees half of it."""
    cache = _cache_folder(root)
    cache.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=cache.parent, prefix="new-"))
    for name, array in (("paths", index.paths), ("ends", index.ends), ("labels", index.labels)):
        np.save(temporary / f"{name}.npy", array)
    meta = {"version": _VERSION, "root": str(root.resolve()), "classes": index.classes, "folders": folders}
    (temporary / "meta.json").write_text(json.dumps(meta))
    stale = Path(tempfile.mkdtemp(dir=cache.parent, prefix="old-"))
    try:
        if cache.is_dir():
            cache.rename(stale / "index")
        temporary.rename(cache)
    except OSError:
        shutil.rmtree(temporary)  # another process was faster; its index is as good
    shutil.rmtree(stale)
