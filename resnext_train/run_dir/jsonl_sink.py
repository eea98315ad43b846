"""log.jsonl: one JSON object per event."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, NamedTuple

from resnext_train.atomic_file import free_name, link_atomically, write_atomically
from resnext_train.regular_file import read_regular
from resnext_train.run_dir.append_file import AppendFile
from resnext_train.run_dir.console import print_warning
from resnext_train.run_dir.sink import Event, LogEnd, Sink

_MAX_BYTES = 1 << 32
"""Limit of a log that is continued. A step's line has 250 bytes."""


class JsonlSink(Sink):
    """One line per event, each written at once."""

    def __init__(self, path: Path, end: LogEnd) -> None:
        """Continue `path` after `end`: cut off what an interrupted run logged beyond it.

        What is no line of a log is left out, and the damaged log is kept beside the new one.

        Raises:
            OSError: it cannot be read or written.
        """
        log = read_log(path)
        if log.damaged:
            aside = free_name(path.with_stem(f"{path.stem}.damaged"))
            link_atomically(path, aside)
            print_warning(f"{path}: {log.damaged} lines are damaged, and left out; the file as it was is {aside}")
        kept = [(line, event) for line, event in zip(log.lines, log.events, strict=True) if end.holds(event)]
        write_atomically(path, lambda file: file.writelines(line for line, _ in kept))
        self._file = AppendFile(path)
        self.last_step = [event for _, event in kept if event["step"] == end.step]
        """The kept events of the last step."""

    def write(self, event: Event) -> None:
        self._file.write((to_json(event) + "\n").encode())

    def close(self) -> None:
        self._file.close()


def to_json(value: Any, indent: int | None = None) -> str:
    """Return JSON text. NaN and infinity, which JSON does not have, become null."""
    return json.dumps(_without_nan(value), indent=indent, allow_nan=False)


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_nan(v) for k, v in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


class Log(NamedTuple):
    """The readable lines of a log."""

    lines: list[bytes]
    events: list[Event]
    """What the lines say: each has a text `event` and a whole number `step`."""
    damaged: int
    """Lines that are none of a log. A last one without its end is not counted: its writer was killed."""


def read_log(path: Path) -> Log:
    """Read a log; one that is not there is empty.

    Every line is looked at: a `checkpoint` event carries an earlier step than the events before it, because a save
    ends some steps after it began.

    Raises:
        OSError: it cannot be read, or is no regular file.
    """
    try:
        content = read_regular(path, _MAX_BYTES)
    except (FileNotFoundError, NotADirectoryError):
        content = b""
    lines: list[bytes] = []
    events: list[Event] = []
    damaged = 0
    for line in content.split(b"\n")[:-1]:
        event = _event_in(line)
        if event is None:
            damaged += 1
        else:
            lines.append(line + b"\n")
            events.append(event)
    return Log(lines, events, damaged)


def _event_in(line: bytes) -> Event | None:
    try:
        event = json.loads(line)
    except (ValueError, RecursionError):  # no JSON, no UTF-8, a number of thousands of digits, a deep nesting
        return None
    if not isinstance(event, dict) or not isinstance(event.get("event"), str):
        return None
    return event if type(event.get("step")) is int and event["step"] >= 0 else None
