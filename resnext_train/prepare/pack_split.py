"""Pack a split shard by shard, so that a killed command can resume.

plan.json          written first: the source, the settings and the pack's id
shard-00000.bin    a finished shard
shard-00000.npz    its rows of the index; a shard without them is made again
index.bin          written last, from the rows; then the rows and the plan are removed
"""

from __future__ import annotations

import fcntl
import json
import os
import time
import zipfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from resnext_train.data.pack.pack_format import COLUMNS, INDEX, KINDS, PLAN, UNREADABLE, is_pack, shard_name
from resnext_train.data.pack.pack_index import PackIndex
from resnext_train.errors import InputError
from resnext_train.prepare import worker_pool
from resnext_train.prepare.image_splits import Item, Part, Split
from resnext_train.prepare.pack_records import Record, Tier, make_record
from resnext_train.prepare.pack_writer import (
    Columns,
    join_columns,
    remove_unfinished,
    write_errors_explained,
    write_index,
    write_shard,
    write_whole,
)

_PLAN_VERSION = 1


class Outcome(NamedTuple):
    """The content of a pack and the cost of making it."""

    images: int
    kinds: dict[str, int]
    bytes_before: int
    bytes_after: int
    odd: list[tuple[str, str]]
    unreadable: list[tuple[str, str]]
    packed_now: int
    """Images packed by this command, not by an earlier one."""
    seconds: float


@dataclass(frozen=True)
class _Job:
    """The settings that a worker needs to make shards."""

    folder: Path
    id: str
    tier: Tier
    verify_every: int


class _Task(NamedTuple):
    number: int
    part: Part


def pack_split(
    split: Split, folder: Path, tier: Tier, verify_every: int, workers: int, advance: worker_pool.Advance
) -> Outcome | None:
    """Make or finish the pack of `split` in `folder`; return None if it is already finished.

    Raises:
        InputError: the folder holds something else or cannot be written, the images have changed since the pack was
            started, or one cannot be read from the disk.
    """
    started = time.monotonic()
    with write_errors_explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with _lock_folder(folder), write_errors_explained(folder):
        fingerprint = _fingerprint(split, tier)
        if is_pack(folder):
            _check_finished(folder, fingerprint)
            return None
        job = _Job(folder, _plan(folder, split, tier, fingerprint), tier, verify_every)
        remove_unfinished(folder)
        done = _finished_shards(folder, split.parts)
        advance(sum(done.values()))
        tasks = (_Task(number, split.part(number)) for number in range(split.parts) if number not in done)
        try:
            packed = sum(worker_pool.run(partial(_make_shard, job), tasks, min(workers, split.parts), advance))
        finally:
            remove_unfinished(folder)  # files of stopped workers could fill the disk
        return _finish(split, job, fingerprint, packed, started)


def _finished_shards(folder: Path, shards: int) -> dict[int, int]:
    """Return the image counts of finished shards by shard number."""
    done = {}
    for number in range(shards):
        path = folder / shard_name(number)
        if _rows_path(folder, number).is_file() and path.is_file():
            notes = _read_rows(folder, number)[1]
            if notes["size"] == path.stat().st_size:
                done[number] = int(notes["images"])
    return done


def _fingerprint(split: Split, tier: Tier) -> str:
    parts = (_PLAN_VERSION, split.fingerprint, split.classes, split.parts, tier.name, tier.settings)
    return blake2b(json.dumps(parts).encode(), digest_size=16).hexdigest()


@contextmanager
def _lock_folder(folder: Path) -> Iterator[None]:
    """Lock the folder; raises InputError if another command is packing into it."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(f"another command is packing into {folder}; wait for it") from error
        except OSError:
            pass  # a file system without locks
        yield
    finally:
        os.close(descriptor)


def _check_finished(folder: Path, fingerprint: str) -> None:
    """Refuse a finished pack of other images or options; remove leftover rows and plan of this one."""
    if PackIndex(folder).header.source != fingerprint:
        raise InputError(
            f"{folder} holds a pack of other images or with other options; delete it, or write to another folder"
        )
    _clear(folder)


def _clear(folder: Path) -> None:
    for path in [*folder.glob("shard-*.npz"), folder / PLAN]:
        path.unlink(missing_ok=True)
    remove_unfinished(folder)


def _plan(folder: Path, split: Split, tier: Tier, fingerprint: str) -> str:
    """Return the id of the pack in `folder`, from its plan or from a new one.

    Raises:
        InputError: the folder holds something else.
    """
    path = folder / PLAN
    if path.is_file():
        try:
            plan = json.loads(path.read_text())
            planned, id_ = str(plan["fingerprint"]), str(plan["id"])
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path} is damaged; delete {folder} and start again") from error
        if planned != fingerprint:
            raise InputError(
                f"{folder} holds an unfinished pack of other images or options; give those again, delete it, "
                "or write to another folder"
            )
        return id_
    if other := next((name for name in sorted(os.listdir(folder)) if not name.startswith(".")), None):  # noqa: PTH208
        raise InputError(f"{folder} is not empty ({other}) and holds no pack; write to another folder")
    id_ = os.urandom(16).hex()
    plan = {
        "version": _PLAN_VERSION,
        "fingerprint": fingerprint,
        "id": id_,
        "source": split.where,
        "tier": tier.name,
        "settings": tier.settings,
        "shards": split.parts,
    }
    write_whole(path, lambda file: file.write(json.dumps(plan).encode()))
    return id_


def _rows_path(folder: Path, number: int) -> Path:
    return (folder / shard_name(number)).with_suffix(".npz")


def _make_shard(job: _Job, task: _Task, advance: worker_pool.Advance) -> int:
    """Write a shard, then its rows; return its number of images."""
    rows = _Rows()
    with write_errors_explained(job.folder):
        records = rows.collect(job, task.part, advance)
        offsets, size = write_shard(job.folder, task.number, job.id, records)
        columns = rows.columns(task.number, offsets)
        notes = {
            "images": len(rows.names),
            "bytes_before": rows.bytes_before,
            "size": size,
            "odd": rows.odd,
            "unreadable": rows.unreadable,
        }
        content: dict[str, Any] = {**columns, "notes": np.frombuffer(json.dumps(notes).encode(), np.uint8)}
        path = _rows_path(job.folder, task.number)
        write_whole(path, lambda file: np.savez(file, **content))
    return len(rows.names)


class _Rows:
    """The rows of a shard, collected while its records are written."""

    def __init__(self) -> None:
        self.names: list[bytes] = []
        self.bytes_before = 0
        self.odd: list[tuple[str, str]] = []
        self.unreadable: list[tuple[str, str]] = []
        self._labels: list[int] = []
        self._records: list[tuple[int, int, int, int]] = []
        self._digests: list[bytes] = []

    def collect(self, job: _Job, part: Part, advance: worker_pool.Advance) -> Iterator[bytes]:
        """Yield the records of `part` and collect their rows."""
        for position, item in enumerate(part.items()):
            data = item.read()
            record = make_record(data, item.name, job.tier, verify=position % job.verify_every == 0)
            self._add(item, record, len(data))
            yield record.data
            advance(1)

    def _add(self, item: Item, record: Record, before: int) -> None:
        self.names.append(os.fsencode(item.name))
        self.bytes_before += before
        self._labels.append(item.label)
        self._records.append((len(record.data), record.height, record.width, record.kind))
        self._digests.append(blake2b(record.data, digest_size=16).digest())
        if record.odd:
            (self.unreadable if record.kind == UNREADABLE else self.odd).append((item.name, record.odd))

    def columns(self, number: int, offsets: NDArray[np.uint64]) -> Columns:
        """Return the columns of shard `number` for these record offsets."""
        length, height, width, kind = np.array(self._records, np.int64).reshape(-1, 4).T
        content = {
            "shard": np.full(len(self.names), number),
            "offset": offsets,
            "length": length,
            "height": height,
            "width": width,
            "label": self._labels,
            "kind": kind,
            "digest": np.frombuffer(b"".join(self._digests), np.uint8).reshape(-1, 16),
            "name_ends": np.cumsum([len(name) for name in self.names]),
        }
        columns = {name: np.asarray(values, COLUMNS[name][0]) for name, values in content.items()}
        columns["names"] = np.frombuffer(b"".join(self.names), np.uint8)
        return columns


def _read_rows(folder: Path, number: int) -> tuple[Columns, dict[str, Any]]:
    path = _rows_path(folder, number)
    try:
        with np.load(path, allow_pickle=False) as file:
            columns = {name: file[name] for name in file.files}
        return columns, json.loads(columns.pop("notes").tobytes())
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise InputError(f"{path} is damaged; delete it and give the same command again") from error


def _finish(split: Split, job: _Job, fingerprint: str, packed: int, started: float) -> Outcome:
    """Write the index from the rows, then remove the rows and the plan."""
    rows = [_read_rows(job.folder, number) for number in range(split.parts)]
    notes = [note for _, note in rows]
    columns = join_columns([columns for columns, _ in rows])
    about = {
        "id": job.id,
        "tier": job.tier.name,
        "settings": job.tier.settings,
        "classes": split.classes,
        "titles": split.titles,
        "shards": [note["size"] for note in notes],
        "source": fingerprint,
    }
    write_index(job.folder, about, columns)
    _clear(job.folder)
    kinds = Counter(columns["kind"].tolist())
    return Outcome(
        images=len(columns["kind"]),
        kinds={name: kinds[kind] for kind, name in enumerate(KINDS)},
        bytes_before=sum(note["bytes_before"] for note in notes),
        bytes_after=sum(note["size"] for note in notes) + (job.folder / INDEX).stat().st_size,
        odd=[(name, why) for note in notes for name, why in note["odd"]],
        unreadable=[(name, why) for note in notes for name, why in note["unreadable"]],
        packed_now=packed,
        seconds=time.monotonic() - started,
    )
