"""Unpack packs to image files."""

from __future__ import annotations

import io
import os
from hashlib import blake2b
from pathlib import Path, PurePosixPath

from PIL import Image

from resnext_train.data.pack.pack_format import PIXELS, UNREADABLE, is_pack
from resnext_train.data.pack.pack_index import PackIndex
from resnext_train.errors import InputError
from resnext_train.prepare.image_splits import is_plain
from resnext_train.prepare.pack_images import PrintLine, progress
from resnext_train.prepare.pack_writer import write_errors_explained


def unpack(source: Path, out: Path, print_line: PrintLine) -> None:
    """Write the images of the pack `source`, or of the packs in its train and val, as files below `out`.

    Raises:
        InputError: no pack, a pack whose names lead out of `out`, or `out` is not empty or cannot be written.
    """
    there = [name for name in ("train", "val") if os.path.lexists(source / name)]
    names = [""] if is_pack(source) else there
    if not any(is_pack(source / name) for name in names):
        raise InputError(f"{source} holds no finished pack, and neither do its train and val; give a pack's folder")
    indices = {name: PackIndex(source / name) for name in names}
    for index in indices.values():
        _check_names(index)
    with write_errors_explained(out):
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise InputError(f"{out} is not empty, and no file is overwritten; give a new folder")
        for name, index in indices.items():
            _write(index, out / name, print_line)


def _check_names(index: PackIndex) -> None:
    """Refuse names with which an untrusted pack could write outside of the target folder."""
    for i in range(len(index)):
        name = index.name(i)
        if not is_plain(name):
            raise InputError(
                f"{index.path}: the name {name!r} leads out of the folder to write to; nothing was written"
            )


def _write(index: PackIndex, out: Path, print_line: PrintLine) -> None:
    arrays = 0
    unreadable = int((index.kind == UNREADABLE).sum())
    with progress(len(index), str(out)) as bar:
        for i in range(len(index)):
            name, data = index.name(i), _record(index, i)
            if index.kind[i] == PIXELS:
                name, data = str(PurePosixPath(name).with_suffix(".png")), _png(index, i)
                arrays += 1
            _write_new(out / name, data)
            bar.update(1)
    notes = f", {arrays:,} of them arrays, now PNG files that end in .png" if arrays else ""
    notes += f", {unreadable:,} of them unreadable and unchanged" if unreadable else ""
    print_line(f"{out}: {len(index):,} files{notes}")


def _record(index: PackIndex, i: int) -> bytes:
    """Return the record of image `i`; raises InputError if its digest is wrong."""
    try:
        data = bytes(index.read(i))
    except OSError as error:
        raise InputError(
            f"{index.path}: {index.name(i)} cannot be read: {error.strerror}; copy the pack again"
        ) from error
    if blake2b(data, digest_size=16).digest() != index.digest[i].tobytes():
        raise InputError(f"{index.path}: {index.name(i)} is not what was written; copy the pack again")
    return data


def _write_new(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with path.open("xb") as file:
            file.write(data)
    except FileExistsError as error:
        raise InputError(f"two images would be written to {path}; rename one and pack again") from error


def _png(index: PackIndex, i: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(index.pixels(i)).save(file, "PNG", compress_level=1)
    return file.getvalue()
