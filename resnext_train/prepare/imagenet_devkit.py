"""Read ImageNet's development kit: the classes of the validation images, and what the classes are called."""

from __future__ import annotations

import os
import tarfile
import zlib
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any, NamedTuple

from resnext_train.errors import InputError, MissingLibraryError
from resnext_train.prepare.image_splits import is_plain
from resnext_train.prepare.imagenet_archives import TarHeader, entries_of, reason_of
from resnext_train.prepare.matlab_synsets import read_synsets
from resnext_train.regular_file import open_regular, read_regular

_MAX_DEVKIT = 100_000_000
"""Bytes of a table of the devkit at most; the real ones have under 1 MB."""

_LONGEST_NAME = 255
"""Bytes of a file's name at most, on Linux."""


class Devkit(NamedTuple):
    """The class of each validation image, and the plain names of the classes."""

    val_labels: list[str]
    titles: dict[str, str]


def read_devkit(path: Path) -> Devkit:
    """Read ILSVRC2012_devkit_t12.tar.gz.

    Label k of the ground truth is the class with ILSVRC2012_ID k. Only leaves of the hierarchy, 1 to 1000, have images.

    Raises:
        InputError: it cannot be read or lacks a file.
        MissingLibraryError: SciPy is not installed.
    """
    if find_spec("scipy") is None:
        raise MissingLibraryError(
            f"--devkit: {path} holds a MATLAB file, which needs the library scipy; "
            "pip install 'resnext-train[imagenet]', or give --val-wnids instead"
        )
    meta, truth = _devkit_files(path)
    try:
        leaves = {synset.number: synset for synset in read_synsets(meta) if not synset.children}
        labels = [leaves[int(line)].name for line in truth.decode().split()]
    except (ValueError, KeyError) as error:
        raise InputError(f"--devkit: {path} is damaged or not an ImageNet 2012 devkit ({error})") from error
    if invalid := next((s.name for s in leaves.values() if not _is_class(s.name)), None):
        raise InputError(f"--devkit: {path} holds {invalid!r}, which cannot be a class")
    return Devkit(labels, {synset.name: synset.words for synset in leaves.values()})


def _devkit_files(path: Path) -> tuple[bytes, bytes]:
    files = {"/data/meta.mat": b"", "/data/ILSVRC2012_validation_ground_truth.txt": b""}
    try:
        with (
            os.fdopen(open_regular(path), "rb") as file,
            tarfile.open(fileobj=file, mode="r:*", tarinfo=TarHeader) as archive,
        ):
            for entry in entries_of(archive):
                for ending in files:
                    # A sparse file of a few bytes may state any size.
                    if entry.isreg() and not entry.issparse() and f"/{entry.name}".endswith(ending):
                        files[ending] = _content(archive, entry)
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise InputError(f"--devkit: {path} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    except Exception as error:  # tarfile raises many kinds on damaged headers
        raise InputError(f"--devkit: {path} cannot be read: {reason_of(error)}; download it again") from error
    if missing := [ending for ending, content in files.items() if not content]:
        raise InputError(f"--devkit: {path} holds no *{missing[0]}; give ILSVRC2012_devkit_t12.tar.gz")
    return files["/data/meta.mat"], files["/data/ILSVRC2012_validation_ground_truth.txt"]


def _content(archive: tarfile.TarFile, entry: tarfile.TarInfo) -> bytes:
    if entry.size > _MAX_DEVKIT:
        raise tarfile.TarError(f"its {entry.name} has {entry.size:,} bytes")
    file: IO[bytes] | Any = archive.extractfile(entry)
    content: bytes = file.read()
    return content


def read_wnids(path: Path) -> list[str]:
    """Read the class of each validation image, one per line, in the order of the images' numbers.

    Raises:
        InputError: it cannot be read, or a line is not a class name.
    """
    try:
        labels = read_regular(path, _MAX_DEVKIT).decode("utf-8-sig").split()
    except UnicodeDecodeError as error:
        raise InputError(f"--val-wnids: {path} is not a text file in UTF-8") from error
    except OSError as error:
        raise InputError(f"--val-wnids: {path} cannot be read: {error.strerror}") from error
    if invalid := next((name for name in labels if not _is_class(name)), None):
        raise InputError(f"--val-wnids: {path} holds {invalid!r}, which cannot be a class")
    return labels


def _is_class(name: str) -> bool:
    """Return whether a class's folder may have this name."""
    return is_plain(name) and "/" not in name and len(os.fsencode(name)) <= _LONGEST_NAME
