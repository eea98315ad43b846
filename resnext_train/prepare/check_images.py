"""Check every image of a folder or pack, to find damaged ones before training does."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

from resnext_train.data.decode.image_limits import check_size
from resnext_train.data.decode.jpeg_header import BadImageError
from resnext_train.data.decode.lazy_image import decode
from resnext_train.data.decode.restart_markers import find_segments
from resnext_train.data.pack.pack_format import (
    KINDS,
    PIXELS,
    RESTART,
    UNREADABLE,
    VERBATIM,
    is_pack,
    is_unfinished_pack,
)
from resnext_train.data.pack.pack_index import PackIndex
from resnext_train.data.split_folders import find_splits
from resnext_train.errors import InputError
from resnext_train.prepare import worker_pool
from resnext_train.prepare.file_formats import header_of, is_gray_jpeg, oddity
from resnext_train.prepare.image_splits import Part, Split, is_plain, parts_of, splits_of
from resnext_train.prepare.pack_images import PrintLine, print_odd, progress
from resnext_train.prepare.pack_records import check_stream, find_jpegtran

_CHUNK = 256


class _Findings(NamedTuple):
    """Bad and odd images, as (name, reason)."""

    bad: list[tuple[str, str]]
    odd: list[tuple[str, str]]


def check(path: Path, workers: int, print_line: PrintLine) -> bool:
    """Check the folder, table, pack or pair of packs at `path`, list bad and odd images, return whether none is bad.

    Raises:
        InputError: there is nothing to check.
    """
    found = list(find_splits(path).values())
    unfinished = [folder for folder in (path, *found) if is_unfinished_pack(folder)]
    if unfinished:
        raise InputError(
            f"{unfinished[0]} holds a pack that is not finished, or has lost its index; give the command that began it "
            "again, or copy it again"
        )
    packs = [folder for folder in (path, *found) if is_pack(folder)]
    # One split may be a pack and the other a folder.
    folders = [folder for folder in found if folder not in packs] if packs else [path]
    splits = [split for folder in folders if folder not in packs for split in splits_of(folder).values()]
    return all(
        [  # a list, not a generator: check every split even if one is bad
            *(_check_pack(folder, workers, print_line) for folder in packs if path not in packs or folder == path),
            *(_check_folder(split, workers, print_line) for split in splits if path not in packs),
        ]
    )


def _check_folder(split: Split, workers: int, print_line: PrintLine) -> bool:
    findings = _Findings([], [])
    with progress(split.images, split.where) as bar:
        for found in worker_pool.run(_check_part, parts_of(split), workers, bar.update):
            _add(findings, found)
    return _print_findings(split.where, split.images or 0, findings, print_line)


def _check_part(part: Part, advance: worker_pool.Advance) -> _Findings:
    findings, jpegtran = _Findings([], []), find_jpegtran()
    for item in part.items():
        try:
            data = item.read()
            decode(data)
            check_stream(data, jpegtran)
        except (BadImageError, InputError) as error:
            findings.bad.append((item.name, str(error)))
        else:
            if odd := _oddity(data, item.name):
                findings.odd.append((item.name, odd))
        advance(1)
    return findings


def _check_pack(folder: Path, workers: int, print_line: PrintLine) -> bool:
    try:
        index = PackIndex(folder)
    except InputError as error:
        print_line(f"bad: {error}")
        return False
    findings = _Findings(_check_index(index), [])
    if not findings.bad:
        with progress(len(index), str(folder)) as bar:
            for found in worker_pool.run(partial(_check_records, index), _chunks(len(index)), workers, bar.update):
                _add(findings, found)
    return _print_findings(str(folder), len(index), findings, print_line)


def _check_index(index: PackIndex) -> list[tuple[str, str]]:
    """List the errors of the index as a whole."""
    file = str(index.path / "index.bin")
    try:
        intact = index.columns_digest() == index.header.digest
    except (ValueError, KeyError, TypeError, OverflowError):  # for odd types of columns
        intact = False
    if not intact:
        return [(file, "its arrays are not those that were written; copy it again, or pack the images again")]
    bad = []
    if index.label.min() < 0 or index.label.max() >= len(index.classes):
        bad.append((file, "a label is out of range"))
    if index.kind.max() >= len(KINDS):
        bad.append((file, "a record is of an unknown kind"))
    return bad


def _chunks(images: int) -> Iterator[range]:
    return (range(start, min(start + _CHUNK, images)) for start in range(0, images, _CHUNK))


def _check_records(index: PackIndex, images: range, advance: worker_pool.Advance) -> _Findings:
    findings = _Findings([], [])
    for i in images:
        name = index.name(i)
        try:
            odd = _check_record(index, i, name)
        except (BadImageError, OSError) as error:
            findings.bad.append((name, str(error)))
        else:
            if odd:
                findings.odd.append((name, odd))
        advance(1)
    return findings


def _check_record(index: PackIndex, i: int, name: str) -> str:
    """Return what is odd about a record or ""; raises BadImageError or OSError if it is bad."""
    if not is_plain(name):
        raise BadImageError("its name leads out of the folder")
    data = bytes(index.read(i))
    if blake2b(data, digest_size=16).digest() != index.digest[i].tobytes():
        raise BadImageError("the record is not what was written: the disk or a copy is damaged; copy the pack again")
    kind, size = int(index.kind[i]), (int(index.height[i]), int(index.width[i]))
    if kind == UNREADABLE:
        decode(data)
        raise BadImageError("no decoder could read it when it was packed; pack it again")
    if kind == PIXELS:
        check_size(*index.pixels(i).shape[:2])
        return ""
    _, height, width = decode(data).shape
    if kind == VERBATIM:
        check_stream(data, find_jpegtran())
    if (height, width) != size:
        raise BadImageError(f"it is {width} × {height} pixels, but {size[1]} × {size[0]} in the index")
    header = header_of(data)
    if kind == RESTART and (header is None or find_segments(data, header) is None):
        raise BadImageError("it lacks the restart markers that the index states")
    return _oddity(data, name)


def _oddity(data: bytes, name: str) -> str:
    return oddity(data, name) or ("gray JPEG" if is_gray_jpeg(data) else "")


def _add(findings: _Findings, found: _Findings) -> None:
    findings.bad.extend(found.bad)
    findings.odd.extend(found.odd)


def _print_findings(where: str, images: int, findings: _Findings, print_line: PrintLine) -> bool:
    findings.bad.sort()
    findings.odd.sort()
    print_odd(findings.odd, None, print_line)
    for name, why in findings.bad:
        print_line(f"bad: {name}: {why}")
    bad = f"{len(findings.bad):,} bad" if findings.bad else "none bad"
    print_line(f"{where}: {images:,} images, {bad}, {len(findings.odd):,} odd")
    return not findings.bad
