"""The results of a run per class, as `resnext eval --out` wrote them into its folder. Imports no torch."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from resnext_train.data.class_titles import short_titles
from resnext_train.regular_file import read_regular

_MAX_BYTES = 1 << 27
"""Limit of a table: one of 1,000 classes has 2 MB, a list of confusions of 22,000 classes 40."""


@dataclass(frozen=True)
class ClassResult:
    """The results of a class that has images."""

    name: str
    title: str
    """What people call it, in short."""
    count: int
    correct: int

    @property
    def accuracy(self) -> float:
        """In per cent."""
        return 100 * self.correct / self.count


@dataclass(frozen=True)
class ConfusionPart:
    """Rows of a confusion matrix, in per cent of each row's images."""

    labels: tuple[str, ...]
    """Titles of the rows' classes."""
    predicted: tuple[str, ...]
    """Titles of the columns' classes; `OTHERS` is all that are not named."""
    shares: tuple[tuple[float, ...], ...]
    """In per cent; each row sums to 100."""
    counts: tuple[tuple[int, ...], ...]
    own: tuple[int, ...]
    """For each row, the column of its own class."""


ITSELF, OTHERS = "itself", "all others"


def read_classes(evaluation: Path) -> list[ClassResult]:
    """Return the classes in classes.csv that have images, the least accurate first.

    Raises:
        FileNotFoundError: there is none.
        OSError, ValueError: it cannot be read, or is damaged.
    """
    file = evaluation / "classes.csv"
    with _damage_named(file):
        found = [_class_result(row) for row in csv.DictReader(_text(file))]
    titles = short_titles([result.name for result in found], [result.title for result in found])
    with_images = [replace(result, title=title) for result, title in zip(found, titles, strict=True) if result.count]
    return sorted(with_images, key=lambda result: (result.accuracy, -result.count))


def _class_result(row: Mapping[str, str | None]) -> ClassResult:
    name = row.get("class")
    if not name or None in row:
        raise ValueError("a line has no class, or too many fields")
    count, correct = (int(row.get(key) or "") for key in ("count", "top1_correct"))
    if not 0 <= correct <= count < 1 << 63:
        raise ValueError(f"{correct} of {count} images are correct")
    return ClassResult(name, row.get("title") or name, count, correct)


@contextmanager
def _damage_named(file: Path) -> Iterator[None]:
    """Raise a ValueError that names `file` for what the reading of its lines meets, csv.Error included."""
    try:
        yield
    except (ValueError, csv.Error) as error:
        raise ValueError(f"{file.name} is damaged: {error}") from error


def _text(path: Path) -> io.StringIO:
    return io.StringIO(read_regular(path, _MAX_BYTES).decode(errors="replace"), newline="")


def read_confusion(evaluation: Path, classes: Sequence[ClassResult], most: int = 12) -> ConfusionPart | None:
    """Return what the least accurate `most` classes of `classes` were taken for; None without classes.

    Of at most `most` classes it is the whole matrix, else their own class, what they were most often taken for, and all
    others.

    Raises:
        FileNotFoundError: there is no confusion.csv.
        OSError, ValueError: it cannot be read, or is damaged.
    """
    worst = list(classes[:most])
    if not worst:
        return None
    file = evaluation / "confusion.csv"
    with _damage_named(file):
        rows = _counts(file, {result.name for result in worst})
    titles = {result.name: result.title for result in classes}
    if len(classes) <= most:
        return _whole(worst, rows, titles)
    return _worst(worst, rows, titles, most - 2)


def _whole(
    classes: Sequence[ClassResult], rows: Mapping[str, Mapping[str, int]], titles: Mapping[str, str]
) -> ConfusionPart:
    columns = [result.name for result in classes]
    extra = sorted({name for row in rows.values() for name in row} - set(columns))  # classes without images
    counts = [[rows.get(result.name, {}).get(column, 0) for column in [*columns, *extra]] for result in classes]
    named = tuple(titles.get(name, name) for name in [*columns, *extra])
    return _part([titles[name] for name in columns], named, counts, range(len(columns)))


def _worst(
    classes: Sequence[ClassResult], rows: Mapping[str, Mapping[str, int]], titles: Mapping[str, str], most: int
) -> ConfusionPart:
    totals: dict[str, int] = {}
    for result in classes:
        for name, count in rows.get(result.name, {}).items():
            if name != result.name:
                totals[name] = totals.get(name, 0) + count
    columns = sorted(totals, key=lambda name: -totals[name])[:most]
    counts = []
    for result in classes:
        row = rows.get(result.name, {})
        itself = row.get(result.name, 0)
        named = [row.get(name, 0) if name != result.name else 0 for name in columns]
        counts.append([itself, *named, sum(row.values()) - itself - sum(named)])
    heads = (ITSELF, *(titles.get(name, name) for name in columns), OTHERS)
    return _part([result.title for result in classes], heads, counts, [0] * len(classes))


def _part(
    labels: Sequence[str], predicted: Sequence[str], counts: Sequence[Sequence[int]], own: Sequence[int]
) -> ConfusionPart:
    shares = tuple(tuple(100 * count / max(sum(row), 1) for count in row) for row in counts)
    return ConfusionPart(tuple(labels), tuple(predicted), shares, tuple(tuple(row) for row in counts), tuple(own))


def _counts(path: Path, wanted: set[str]) -> dict[str, dict[str, int]]:
    """Return the counts that are not 0, by label and prediction, of the `wanted` labels; the file has either form."""
    lines = csv.reader(_text(path))
    head = next(lines, [])
    if not head or head[0] != "label":
        raise ValueError("its first line does not begin with label")
    cells = _list_cells(lines, wanted) if head[1:] == ["predicted", "count"] else _matrix_cells(head, lines, wanted)
    found: dict[str, dict[str, int]] = {}
    for label, predicted, count in cells:
        if count < 0:
            raise ValueError("a count is negative")
        found.setdefault(label, {})[predicted] = count
    return found


def _list_cells(lines: Iterator[list[str]], wanted: set[str]) -> Iterator[tuple[str, str, int]]:
    for line in lines:
        label, predicted, count = line  # too few or too many values are a ValueError
        if label in wanted:
            yield label, predicted, int(count)


def _matrix_cells(head: list[str], lines: Iterator[list[str]], wanted: set[str]) -> Iterator[tuple[str, str, int]]:
    for line in lines:
        if len(line) != len(head):
            raise ValueError("a line is too short or too long")
        if line[0] in wanted:
            for predicted, count in zip(head[1:], line[1:], strict=True):
                if count != "0":
                    yield line[0], predicted, int(count)
