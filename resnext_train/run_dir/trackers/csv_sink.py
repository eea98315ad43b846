"""metrics.csv in the run folder: the numbers of all trackers, for spreadsheets and pandas."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from resnext_train.atomic_file import write_text_atomically
from resnext_train.regular_file import read_regular
from resnext_train.run_dir.append_file import AppendFile
from resnext_train.run_dir.sink import Event, Sink
from resnext_train.run_dir.trackers.logged_scalars import TRAIN_NAMES, scalars_of
from resnext_train.run_dir.trackers.tracked_run import TrackedRun

_MAX_BYTES = 1 << 32
_KEYS = ("event", "step", "epoch")
_MEASURES = ("loss", "accuracy", "top5_accuracy")


class CsvSink(Sink):
    """One row for each step or epoch event, with columns that the recipe alone decides; what a row lacks is empty."""

    def __init__(self, run: TrackedRun) -> None:
        """Continue metrics.csv after the run's end: leave out the rows of what an interrupted run logged beyond it.

        Raises:
            OSError: it cannot be read or written.
            ValueError: it is no such table.
        """
        path = run.folder / "metrics.csv"
        kept = [row for row in _read(path) if run.end.holds({**row, "step": int(row["step"])})] if run.end.step else []
        before = [name for name in (kept[0] if kept else ()) if name]
        self._columns = list(dict.fromkeys([*before, *columns(run.recipe)]))  # the recipe may have been changed
        write_text_atomically(path, ",".join(self._columns) + "\r\n" + self._text(kept))
        self._file = AppendFile(path)

    def write(self, event: Event) -> None:
        if event["event"] in ("step", "epoch"):
            row = {key: event[key] for key in _KEYS} | scalars_of(event)
            self._file.write(self._text([row]).encode())

    def close(self) -> None:
        self._file.close()

    def _text(self, rows: Iterable[Mapping[str, Any]]) -> str:
        text = io.StringIO()
        csv.DictWriter(text, self._columns, extrasaction="ignore").writerows(rows)
        return text.getvalue()


def columns(recipe: Mapping[str, Any]) -> list[str]:
    """Return the columns of a recipe's table."""
    sets = ["val", *(recipe["eval"].get("also") or {})]
    averaged = recipe.get("ema", {}).get("decay") is not None
    measures = [*_MEASURES, *(f"ema_{name}" for name in _MEASURES if averaged)]
    return [*_KEYS, *TRAIN_NAMES, *(f"{name}/{measure}" for name in sets for measure in measures)]


def _read(path: Path) -> list[dict[str, str]]:
    """Return the whole rows of a table; none if it is not there."""
    try:
        text = read_regular(path, _MAX_BYTES).decode()
    except FileNotFoundError:
        return []
    whole = text[: text.rfind("\n") + 1]  # a killed run may have been writing the last row
    return [row for row in csv.DictReader(io.StringIO(whole, newline="")) if (row.get("step") or "").isdecimal()]
