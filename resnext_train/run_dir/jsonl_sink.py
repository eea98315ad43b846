"""log.jsonl: one JSON object per event."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from resnext_train.atomic_file import replace_text
from resnext_train.run_dir.append_file import AppendFile
from resnext_train.run_dir.sink import Event


class JsonlSink:
    """One line per event, each written at once."""

    def __init__(self, path: Path, step: int) -> None:
        """Continue `path` after `step` finished steps: what an interrupted run logged beyond that is cut off."""
        kept = _lines_until(path, step) if path.exists() else []
        replace_text(path, "".join(kept))
        self._file = AppendFile(path)

    def write(self, event: Event) -> None:
        """Append one line."""
        self._file.write((to_json(event) + "\n").encode())

    def tick(self, epoch: int, step_in_epoch: int) -> None:
        """Nothing."""

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def to_json(value: Any, indent: int | None = None) -> str:
    """JSON text; null stands for NaN and infinity, which JSON does not have."""
    return json.dumps(_without_nan(value), indent=indent, allow_nan=False)


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_nan(v) for k, v in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _lines_until(path: Path, step: int) -> list[str]:
    """The whole lines of a log but for events beyond `step`; a half-written last line is left out.

    Not all that follows an event beyond it is beyond it too: that a checkpoint is written is known some steps later.
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
