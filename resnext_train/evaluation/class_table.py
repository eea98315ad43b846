"""What was taken for what: accuracy per class, and the confusion matrix. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from resnext_train.evaluation.image_results import ImageResults
from resnext_train.evaluation.wilson import wilson_interval
from resnext_train.run_dir.result_file import csv_lines, text_in_utf8, write_result

_WAITING = 1 << 16
"""Images that are held before they are counted in: 0.5 MB."""

WHOLE_MATRIX = 1000
"""Most classes of which confusion.csv is the whole matrix: 2 MB. That of ImageNet-22K's would have 950 MB of zeros."""

Cells = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]
"""Label, predicted class and count of the cells of a confusion matrix that are not 0, by label, then by prediction."""


@dataclass(frozen=True)
class Confusion:
    """Images of one class that were taken for another."""

    label: int
    predicted: int
    count: int
    of: int
    """Images of the class `label`."""


@dataclass(frozen=True)
class ClassRow:
    """The results of one class, by number."""

    number: int
    count: int
    top1_correct: int
    top5_correct: int
    predicted: int
    """Images of any class that were taken for this one."""
    confused_with: Confusion | None
    """The wrong class that was predicted most often; of several, the first. None where there was none."""

    @property
    def accuracy(self) -> float | None:
        """In per cent; None without images."""
        return 100 * self.top1_correct / self.count if self.count else None

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of the accuracy in per cent."""
        return wilson_interval(self.top1_correct, self.count)


class ClassTable:
    """Counts of an evaluation per class, and its confusion matrix.

    Memory is some 24 bytes for each cell of the matrix that is not 0, so at most for each image. Of an image with
    several labels the best-ranked one counts, which is the one in its results.
    """

    def __init__(self, classes: Sequence[str], titles: Sequence[str] | None = None) -> None:
        """Count for `classes`. `titles` are their human names, for the files; None: none are known."""
        self.classes, self.titles = tuple(classes), None if titles is None else tuple(titles)
        n = len(self.classes)
        self._count, self._top1, self._top5 = (np.zeros(n, np.int64) for _ in range(3))
        self._codes, self._counts = (np.zeros(0, np.int64) for _ in range(2))
        self._waiting: list[NDArray[np.int64]] = []

    def add(self, results: ImageResults) -> None:
        n = len(self.classes)
        for total, counted in ((self._count, 1 << 62), (self._top1, 1), (self._top5, 5)):
            total += np.bincount(results.labels[results.ranks < counted], minlength=n)
        self._waiting.append(results.labels * n + results.classes[:, 0])
        if sum(map(len, self._waiting)) >= _WAITING:
            self._count_in()

    def _count_in(self) -> None:
        """Merge what waits into the sorted codes of cells, label * classes + prediction, and their counts."""
        new, counts = np.unique(np.concatenate((self._codes[:0], *self._waiting)), return_counts=True)
        self._waiting = []
        codes, at = np.unique(np.concatenate((self._codes, new)), return_inverse=True)
        merged = np.zeros(len(codes), np.int64)
        np.add.at(merged, at, np.concatenate((self._counts, counts)))
        self._codes, self._counts = codes, merged

    @property
    def count(self) -> int:
        """Images so far."""
        return int(self._count.sum())

    @property
    def top1_correct(self) -> int:
        """Images whose label is predicted."""
        return int(self._top1.sum())

    @property
    def top5_correct(self) -> int:
        """Images whose label is among the five best classes."""
        return int(self._top5.sum())

    def cells(self) -> Cells:
        """Return the confusion matrix without its zeros."""
        if self._waiting:
            self._count_in()
        labels, predicted = np.divmod(self._codes, len(self.classes))
        return labels, predicted, self._counts

    def confusions(self, most: int) -> list[Confusion]:
        """Return the most frequent confusions; of equally frequent ones, those of the first classes."""
        labels, predicted, counts = _wrong(self.cells())
        first = np.argsort(-counts, kind="stable")[:most]
        return [self._confusion(int(labels[i]), int(predicted[i]), int(counts[i])) for i in first]

    def _confusion(self, label: int, predicted: int, count: int) -> Confusion:
        return Confusion(label, predicted, count, int(self._count[label]))

    def rows(self) -> list[ClassRow]:
        """Return a row for each class, in order."""
        n = len(self.classes)
        cells = self.cells()
        totals = np.zeros(n, np.int64)
        np.add.at(totals, cells[1], cells[2])
        labels, predicted, counts = _wrong(cells)
        order = np.lexsort((predicted, -counts, labels))
        first = order[np.unique(labels[order], return_index=True)[1]]
        worst = {int(labels[i]): self._confusion(int(labels[i]), int(predicted[i]), int(counts[i])) for i in first}
        columns = (self._count.tolist(), self._top1.tolist(), self._top5.tolist(), totals.tolist())
        return [ClassRow(i, *numbers, worst.get(i)) for i, numbers in enumerate(zip(*columns, strict=True))]

    def worst(self, most: int, rows: Sequence[ClassRow] | None = None) -> list[ClassRow]:
        """Return the rows of the least accurate classes that have images; of equal ones, those with most images."""
        with_images = [row for row in (self.rows() if rows is None else rows) if row.count]
        return sorted(with_images, key=lambda row: (row.top1_correct / row.count, -row.count, row.number))[:most]

    def row_values(self, row: ClassRow) -> dict[str, Any]:
        """Return a row as plain values, under the names that classes.csv has for them."""
        low, high = row.interval
        wrong = row.confused_with
        return {
            "class": self.classes[row.number],
            "title": self._title(row.number),
            "count": row.count,
            "top1_correct": row.top1_correct,
            "top5_correct": row.top5_correct,
            "accuracy": row.accuracy,
            "low": low,
            "high": high,
            "predicted": row.predicted,
            "confused_with": wrong and self.classes[wrong.predicted],
            "confused_title": wrong and self._title(wrong.predicted),
            "confused_count": wrong.count if wrong else 0,
        }

    def confusion_values(self, confusion: Confusion) -> dict[str, Any]:
        """Return a confusion as plain values."""
        return {
            "label": self.classes[confusion.label],
            "title": self._title(confusion.label),
            "predicted": self.classes[confusion.predicted],
            "predicted_title": self._title(confusion.predicted),
            "count": confusion.count,
            "of": confusion.of,
        }

    def _title(self, number: int) -> str:
        return (self.titles or self.classes)[number]

    def write_classes(self, file: str | Path, option: str) -> None:
        """Write classes.csv: a line for each class, in order; accuracies in per cent with three decimals.

        Columns are those of `row_values`; `low` and `high` are the ends of the accuracy's 95 % interval.

        Raises:
            InputError: `file`, which `option` named, cannot be written.
        """
        values = [self.row_values(row) for row in self.rows()]
        head = list(values[0])
        write_result(file, option, _csv([head, *([_cell(value) for value in row.values()] for row in values)]))

    def write_confusion(self, file: str | Path, option: str) -> None:
        """Write confusion.csv: the confusion matrix, a line for each label and a column for each predicted class.

        With more than 1,000 classes it has a line for each cell that is not 0 instead: label, predicted, count.

        Raises:
            InputError: `file`, which `option` named, cannot be written.
        """
        whole = len(self.classes) <= WHOLE_MATRIX
        write_result(file, option, _csv(self._matrix() if whole else self._list()))

    def _matrix(self) -> Iterator[Sequence[Any]]:
        labels, predicted, counts = self.cells()
        yield ["label", *self.classes]
        ends = np.searchsorted(labels, np.arange(len(self.classes) + 1))
        for label, name in enumerate(self.classes):
            line = np.zeros(len(self.classes), np.int64)
            here = slice(ends[label], ends[label + 1])
            line[predicted[here]] = counts[here]
            yield [name, *line.tolist()]

    def _list(self) -> Iterator[Sequence[Any]]:
        yield ["label", "predicted", "count"]
        for label, predicted, count in zip(*(column.tolist() for column in self.cells()), strict=True):
            yield [self.classes[label], self.classes[predicted], count]


def _wrong(cells: Cells) -> Cells:
    """Return the cells beside the diagonal."""
    labels, predicted, counts = cells
    off = labels != predicted
    return labels[off], predicted[off], counts[off]


def _cell(value: Any) -> Any:
    return "" if value is None else f"{value:.3f}" if isinstance(value, float) else value


def _csv(rows: Iterable[Sequence[Any]]) -> Callable[[IO[bytes]], None]:
    """Return what writes rows as CSV to a file, some at a time."""

    def write(file: IO[bytes]) -> None:
        rest = iter(rows)
        while some := list(islice(rest, 100)):
            file.write(text_in_utf8(csv_lines(some)).encode())

    return write
