"""What a tracker is told of the run that it tracks, and where the run's names in trackers are kept."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any

from resnext_train.atomic_file import write_text_atomically
from resnext_train.regular_file import read_regular
from resnext_train.run_dir.sink import Event, LogEnd

_MAX_BYTES = 1 << 20


class TrackerIds:
    """trackers.json in the run folder: the id by which each tracker knows the run, which goes on under it."""

    def __init__(self, path: Path) -> None:
        self._path, self._lock = path, Lock()  # trackers are opened in threads of their own

    def get(self, tracker: str) -> str | None:
        """Return the run's id in a tracker; None if it has none."""
        with self._lock:
            return self._read().get(tracker)

    def put(self, tracker: str, run_id: str) -> None:
        """Note the run's id in a tracker.

        Raises:
            OSError: the file cannot be written.
        """
        with self._lock:
            write_text_atomically(self._path, json.dumps({**self._read(), tracker: run_id}, indent=2) + "\n")

    def _read(self) -> dict[str, str]:
        try:
            ids = json.loads(read_regular(self._path, _MAX_BYTES))
        except (OSError, ValueError, RecursionError):  # none, or damaged: new runs are begun there
            return {}
        return {k: v for k, v in ids.items() if isinstance(v, str)} if isinstance(ids, dict) else {}


@dataclass(frozen=True)
class TrackedRun:
    """A run, as its trackers know it."""

    folder: Path
    recipe: Mapping[str, Any]
    """The resolved recipe by section and key, of plain types."""
    recipe_text: str
    """The same as YAML."""
    ids: TrackerIds
    end: LogEnd
    """Where the run's log ends, which goes on from there."""
    last_step: Sequence[Event] = field(default=())
    """The events of the step at that end."""

    @property
    def name(self) -> str:
        """The run folder's name."""
        return self.folder.resolve().name

    def known_id(self, tracker: str) -> str | None:
        """Return the id by which a tracker knows the run; None where the run is new, though its folder may not be."""
        return self.ids.get(tracker) if self.end.step else None

    def flat_recipe(self) -> Iterator[tuple[str, Any]]:
        """Yield each `section.key` of the recipe with its value."""
        for section, values in self.recipe.items():
            for key, value in values.items():
                yield f"{section}.{key}", value
