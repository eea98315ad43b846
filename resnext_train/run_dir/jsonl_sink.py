"""log.jsonl: one JSON object per event."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from resnext_train.atomic_file import write_text_atomically
from resnext_train.run_dir.append_file import AppendFile
from resnext_train.run_dir.sink import Event


class JsonlSink:
    """One line per event, each written at once."""

    def __init__(self, path: Path, step: int) -> None:
        """Continue `path` after `step` finished steps: cut off what an interrupted run logged beyond them."""
        kept = _lines_until(path, step) if path.exists() else []
        write_text_atomically(path, "".join(kept))
        self._file = AppendFile(path)

    def write(self, event: Event) -> None:
        self._file.write((to_json(event) + "\n").encode())

    def tick(self, epoch: int, step_in_epoch: int) -> None:
        """Ignore steps."""

    def close(self) -> None:
        self._file.close()


def to_json(value: Any, indent: int | None = None) -> str:
    """Return JSON text. NaN and infinity, which JSON does not have, become null."""
    return json.dumps(_without_nan(value), indent=indent, allow_nan=False)


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_nan(v) for k, v in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _lines_until(path: Path, step: int) -> list[str]:
    """Return the lines of a log whose events are not beyond `step`, without a half-written last line.

    Every line is looked at: a `checkpoint` event carries an earlier step than the events before it, because a save
    ends some steps after it began.
    """
    kept: list[str] = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True):
        try:
            event = json.loads(line)
        except json.JSONDecodeError:
            break
        if not line.endswith("\n"):
            break
        if event.get("step", 0) <= step:
            kept.append(line)
    return kept
