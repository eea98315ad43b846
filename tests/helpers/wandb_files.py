"""Read the files in which W&B keeps a run offline: LevelDB's log format, of records that are W&B's protocol buffers."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_BLOCK, _FULL, _LAST = 32768, 1, 4


def _payloads(path: Path) -> Iterator[bytes]:
    """The payloads of a log: a header of 7 bytes, then fragments with checksum, length and kind, none across blocks."""
    data, at, payload = path.read_bytes(), 7, b""
    assert data[:4] == b":W&B"
    while at + 7 <= len(data):
        if (left := _BLOCK - at % _BLOCK) < 7:
            at += left
            continue
        _, size, kind = struct.unpack("<IHB", data[at : at + 7])
        payload += data[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (_FULL, _LAST):
            yield payload
            payload = b""


def records(path: Path) -> list[Any]:
    """All records of a file."""
    from wandb.proto import wandb_internal_pb2

    messages: Any = wandb_internal_pb2  # its classes are made as it is imported
    return [messages.Record.FromString(payload) for payload in _payloads(path)]


def history(path: Path) -> list[dict[str, Any]]:
    """The rows that a run logged, by name; nested values, as those of a picture, by the names joined by a dot."""
    return [
        {".".join(item.nested_key) or item.key: json.loads(item.value_json) for item in record.history.item}
        for record in records(path)
        if record.WhichOneof("record_type") == "history"
    ]
