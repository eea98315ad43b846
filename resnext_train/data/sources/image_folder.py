"""Images in one folder per class, scanned once: the list of files is cached and memory-mapped.

The cache is outside the data folder, which may be read-only: in $XDG_CACHE_HOME/resnext-train (or
~/.cache/resnext-train). It is valid until a folder of the tree changes, and costs no memory per loader process, however
these are started: one that is not forked maps the same files again.
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
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from resnext_train.data.decode.lazy_image import LazyImage, open_image
from resnext_train.data.sources.folder_scan import scan_folder
from resnext_train.data.sources.image_source import FILES
from resnext_train.errors import InputError, printable
from resnext_train.regular_file import read_regular

_VERSION = 2
_SETTLED = 2.0
"""Seconds that a folder must be unchanged before its list is cached: a later change in the same tick of the file
system's clock would go unnoticed."""

MAX_BYTES = 1_000_000_000
"""Largest encoded image that is read. Three bytes for each of the pixels that are decoded at most are 300 MB, so more
is no image, and would fill the memory."""


class ImageFolder:
    """All images under root/CLASS/..., each once, by class and path; class names are the folders' names, sorted.

    Raises:
        InputError: a missing folder, no class folders, one without images, or one folder under two names.
    """

    storage = FILES

    def __init__(self, root: Path) -> None:
        self.root = root
        index = _cached_index(root) or _scan_and_cache(root)
        if index.skipped:
            warnings.warn(_told_of(root, index.skipped), stacklevel=2)
        self.classes: tuple[str, ...] = tuple(index.classes)
        self._use(index.files)

    def _use(self, files: _Files) -> None:
        self.labels: NDArray[np.int64] = files.labels
        self._paths, self._ends, self._files = files.paths, files.ends, files

    def __len__(self) -> int:
        return len(self.labels)

    def name(self, i: int) -> str:
        start = int(self._ends[i - 1]) if i else 0
        return str(self.root / os.fsdecode(self._paths[start : int(self._ends[i])].tobytes()))

    def image(self, i: int) -> LazyImage:
        return open_image(read_regular(self.name(i), MAX_BYTES))

    def __getstate__(self) -> tuple[Path, tuple[str, ...], _Files | _MappedFiles]:
        return self.root, self.classes, self._files.mapped or self._files

    def __setstate__(self, state: tuple[Path, tuple[str, ...], _Files | _MappedFiles]) -> None:
        self.root, self.classes, files = state
        self._use(files if isinstance(files, _Files) else files.map_again(self.root))


class _MappedFiles(NamedTuple):
    """Where a file list is mapped from: what a pickle of it holds, instead of a copy of some 50 bytes an image."""

    cache: Path
    identity: list[tuple[int, int, int]]
    """Device, inode and modification time (ns) of the files: another process may have cached a newer list."""

    def map_again(self, root: Path) -> _Files:
        try:
            files = _map_files(self.cache)
        except (OSError, EOFError, ValueError):
            files = None
        if files is None or files.mapped != self:
            raise InputError(f"{root} was changed, or its cached list of files, while loader processes were started")
        return files


class _Files(NamedTuple):
    """The file list as arrays: the bytes of all relative paths joined, the end of each path, and the labels."""

    paths: NDArray[np.uint8]
    ends: NDArray[np.int64]
    labels: NDArray[np.int64]
    mapped: _MappedFiles | None = None
    """None: they are in memory."""


class _Index(NamedTuple):
    """The classes, and the images of each."""

    classes: list[str]
    skipped: list[str]
    """Links that `FolderScan` skipped."""
    files: _Files


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
        else:
            return _cached_index(root) or index  # mapped; unless a folder has just changed
    return index


def _scan(root: Path) -> tuple[_Index, dict[str, int]]:
    """Return the index of `root`, and the modification time (ns) of every folder in it, by relative path."""
    found = scan_folder(root)
    paths = [path for files in found.files for path in files]
    labels = np.repeat(np.arange(len(found.classes), dtype=np.int64), [len(files) for files in found.files])
    ends = np.cumsum([len(path) for path in paths], dtype=np.int64)
    files = _Files(np.frombuffer(b"".join(paths), np.uint8), ends, labels)
    return _Index(found.classes, found.skipped, files), found.folders


def _told_of(root: Path, skipped: list[str]) -> str:
    if more := len(skipped) - 1:
        links = f"the links {skipped[0]} and {more} more lead to folders that are read anyway; their"
    else:
        links = f"the link {skipped[0]} leads to a folder that is read anyway; its"
    return printable(f"{root}: {links} images are taken once")


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
        return _Index(meta["classes"], meta["skipped"], _map_files(cache))
    except (OSError, EOFError, ValueError, KeyError, TypeError):
        return None


def _map_files(cache: Path) -> _Files:
    files = [cache / f"{name}.npy" for name in ("paths", "ends", "labels")]
    paths, ends, labels = (np.load(file, mmap_mode="r") for file in files)
    states = [
        file.stat() for file in files
    ]  # after the maps: files that were exchanged meanwhile are seen to be others
    return _Files(paths, ends, labels, _MappedFiles(cache, [(s.st_dev, s.st_ino, s.st_mtime_ns) for s in states]))


def _store(root: Path, index: _Index, folders: dict[str, int]) -> None:
    """Write the index to a temporary folder and move it into place, so that no reader sees half of it."""
    cache = _cache_folder(root)
    cache.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=cache.parent, prefix="new-"))
    files = index.files
    for name, array in (("paths", files.paths), ("ends", files.ends), ("labels", files.labels)):
        np.save(temporary / f"{name}.npy", array)
    meta = {"version": _VERSION, "root": str(root.resolve()), "classes": index.classes, "skipped": index.skipped}
    (temporary / "meta.json").write_text(json.dumps({**meta, "folders": folders}))
    stale = Path(tempfile.mkdtemp(dir=cache.parent, prefix="old-"))
    try:
        if cache.is_dir():
            cache.rename(stale / "index")
        temporary.rename(cache)
    except OSError:
        shutil.rmtree(temporary)  # another process was faster; its index is as good
    shutil.rmtree(stale)
