"""The forms in which predictions are written: for people, as CSV, as JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

from resnext_train.data.class_titles import short_title
from resnext_train.inference.prediction import ImageRow
from resnext_train.run_dir.result_file import csv_lines

Write = Callable[[str], None]
"""Takes a piece of text."""


class PredictionWriter(Protocol):
    """Takes a row for each image, in order."""

    def add(self, row: ImageRow) -> None: ...

    def close(self) -> None:
        """Take the end: no more rows follow."""


class TextWriter:
    """A block for each image: its path, and a line for each class; a single class stands in the path's line."""

    def __init__(self, write: Write) -> None:
        self._write = write

    def add(self, row: ImageRow) -> None:
        if row.prediction is None:
            return  # stderr names it
        prediction = row.prediction
        width = max(map(len, prediction.classes))
        titles = prediction.titles or ("",) * len(prediction.classes)
        lines = [
            f"{100 * score:6.2f} %  {name:{width}}  {short_title(title)}".rstrip()
            for name, score, title in zip(prediction.classes, prediction.scores, titles, strict=True)
        ]
        self._write(f"{row.path}  {lines[0].lstrip()}" if len(lines) == 1 else row.path)
        for line in lines if len(lines) > 1 else ():
            self._write(f"  {line}")

    def close(self) -> None:
        """Nothing is left."""


class CsvWriter:
    """A line for each image: path, class1 to classK, score1 to scoreK, the titles if they are known, error."""

    def __init__(self, write: Write, count: int, titled: bool) -> None:
        self._write, self._count, self._titled = write, count, titled
        names = ["class", "score", "title"] if titled else ["class", "score"]
        self._line(["path", *(f"{name}{i}" for name in names for i in range(1, count + 1)), "error"])

    def add(self, row: ImageRow) -> None:
        if row.prediction is None:
            self._line([row.path, *[""] * (self._count * (3 if self._titled else 2)), row.error])
            return
        prediction = row.prediction
        scores = [f"{score:.9g}" for score in prediction.scores]
        titles = (prediction.titles or ()) if self._titled else ()
        self._line([row.path, *prediction.classes, *scores, *titles, ""])

    def _line(self, fields: Sequence[str]) -> None:
        self._write(csv_lines([fields]))

    def close(self) -> None:
        """Nothing is left."""


class JsonWriter:
    """A list of an object for each image: path, classes, scores, the titles if they are known, error."""

    def __init__(self, write: Write) -> None:
        self._write, self._before = write, "[\n"

    def add(self, row: ImageRow) -> None:
        prediction = row.prediction
        content: dict[str, Any] = {
            "path": row.path,
            "classes": prediction.classes if prediction else [],
            "scores": [_rounded(score) for score in prediction.scores] if prediction else [],
            **({"titles": prediction.titles} if prediction and prediction.titles else {}),
            "error": row.error or None,
        }
        self._write(self._before + json.dumps(content, allow_nan=False))
        self._before = ",\n"

    def close(self) -> None:
        self._write("\n]\n")


def _rounded(score: float) -> float | None:
    """Return nine digits, which hold all of a number in fp32; None for NaN, which JSON does not have."""
    return float(f"{score:.9g}") if math.isfinite(score) else None


def write_rows(rows: Iterable[ImageRow], writers: Sequence[PredictionWriter]) -> tuple[int, int]:
    """Give all rows to all writers; return how many there were, and how many images could not be read."""
    count = unreadable = 0
    for row in rows:
        count += 1
        unreadable += row.prediction is None
        for writer in writers:
            writer.add(row)
    for writer in writers:
        writer.close()
    return count, unreadable
