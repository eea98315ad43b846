"""Accuracy per class and the confusion matrix, against counting image by image."""

from __future__ import annotations

import csv
import json
import os
import tracemalloc
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from helpers.image_results import chunked, results_of
from resnext_train.errors import InputError
from resnext_train.evaluation import class_table
from resnext_train.evaluation.class_table import ClassTable, Confusion
from resnext_train.evaluation.image_results import ImageResults

CLASSES = ["cat", "dog", "emu", "fox", "gnu", "hen", "yak"]


def taken_for(pairs: list[tuple[int, int]], classes: int = 7) -> ImageResults:
    """Results of images with these labels and predictions."""
    labels, predicted = (np.array(column, np.int64) for column in zip(*pairs, strict=True))
    n = len(pairs)
    best = predicted[:, None]
    return ImageResults(
        np.arange(n), labels, np.where(labels == predicted, 0, 5), np.ones(n), best, np.full((n, 1), 0.5)
    )


def lines(file: Path) -> list[list[str]]:
    with file.open(newline="", encoding="utf-8") as text:
        return list(csv.reader(text))


def test_counts_are_those_of_each_image_whatever_the_chunks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    results = results_of(400, 7, skipped=(5,))
    pairs = Counter(zip(results.labels.tolist(), results.classes[:, 0].tolist(), strict=True))
    seen = []
    for waiting, sizes in ((1 << 16, [399]), (50, [1, 0, 90, 308]), (1, [57] * 7)):
        monkeypatch.setattr(class_table, "_WAITING", waiting)
        table = ClassTable(CLASSES)
        for chunk in chunked(results, sizes):
            table.add(chunk)
        table.write_confusion(tmp_path / "c.csv", "--report")
        seen.append((table.rows(), (tmp_path / "c.csv").read_bytes()))
    assert seen[0] == seen[1] == seen[2]
    assert lines(tmp_path / "c.csv") == [
        ["label", *CLASSES],
        *([name, *(str(pairs[i, j]) for j in range(7))] for i, name in enumerate(CLASSES)),
    ]
    assert table.count == 399
    assert table.top1_correct == int((results.ranks == 0).sum())
    assert table.top5_correct == int((results.ranks < 5).sum())
    for row in table.rows():
        of_class = results.labels == row.number
        assert row.count == of_class.sum()
        assert row.top1_correct == (results.ranks[of_class] == 0).sum() == pairs[row.number, row.number]
        assert row.top5_correct == (results.ranks[of_class] < 5).sum()
        assert row.predicted == (results.classes[:, 0] == row.number).sum()
        wrong = {j: pairs[row.number, j] for j in range(7) if j != row.number}
        assert row.confused_with is not None
        assert row.confused_with.count == max(wrong.values()) == wrong[row.confused_with.predicted]


def test_the_worst_classes_and_the_most_frequent_confusions() -> None:
    table = ClassTable(CLASSES)
    table.add(taken_for([(0, 0), (0, 2), (0, 1), (1, 1), (2, 3), (3, 2), (3, 2), (4, 4), (4, 5), (4, 5), (4, 6)]))
    assert [(row.number, row.accuracy) for row in table.worst(4)] == [
        (3, 0.0),
        (2, 0.0),
        (4, 25.0),
        (0, pytest.approx(100 / 3)),
    ], "of classes that are as bad, the one with more images; those without images are none"
    assert table.confusions(3) == [Confusion(3, 2, 2, 2), Confusion(4, 5, 2, 4), Confusion(0, 1, 1, 3)]
    rows = table.rows()
    assert rows[0].confused_with == Confusion(0, 1, 1, 3), "of two that are as frequent, the first"
    assert rows[1].confused_with is None
    assert (rows[6].count, rows[6].accuracy, rows[6].interval) == (0, None, (0.0, 100.0))
    assert rows[3].interval == pytest.approx((0.0, 65.76), abs=0.01)


def test_classes_csv_has_every_class_with_its_interval(tmp_path: Path) -> None:
    table = ClassTable(CLASSES[:3], ["Katze, Felis catus", "Hund", "Ému"])
    table.add(taken_for([(0, 0)] * 15 + [(0, 2)] * 133 + [(1, 1)]))
    table.write_classes(tmp_path / "classes.csv", "--report")
    head, cat, dog, emu = lines(tmp_path / "classes.csv")
    values = dict(zip(head, cat, strict=True))
    low, high = float(values.pop("low")), float(values.pop("high"))
    assert (low, high) == pytest.approx((6.24, 16.05), abs=0.005), "Newcombe 1998, table I"
    assert values == {
        "class": "cat",
        "title": "Katze, Felis catus",
        "count": "148",
        "top1_correct": "15",
        "top5_correct": "15",
        "accuracy": "10.135",
        "predicted": "15",
        "confused_with": "emu",
        "confused_title": "Ému",
        "confused_count": "133",
    }
    assert dog[5] == "100.000"
    assert dog[9:] == ["", "", "0"]
    assert emu[:9] == ["emu", "Ému", "0", "0", "0", "", "0.000", "100.000", "133"]
    plain = table.row_values(table.rows()[0])
    assert list(plain) == head
    assert json.loads(json.dumps(plain)) == plain


def test_more_than_1000_classes_are_a_list_of_cells_in_modest_memory(tmp_path: Path) -> None:
    classes = [f"c{i}" for i in range(20_000)]
    rng = np.random.default_rng(0)
    tracemalloc.start()
    table = ClassTable(classes)
    for _ in range(20):
        n = 1000
        labels, predicted = rng.integers(20_000, size=(2, n))
        table.add(
            ImageResults(np.arange(n), labels, np.ones(n, np.int64), np.ones(n), predicted[:, None], np.ones((n, 1)))
        )
    table.write_confusion(tmp_path / "c.csv", "--report")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 15e6, "of a matrix with 3.2 GB"
    found = lines(tmp_path / "c.csv")
    assert found[0] == ["label", "predicted", "count"]
    assert sum(int(line[2]) for line in found[1:]) == 20_000
    assert (len(found) - 1) == len({(a, b) for a, b, _ in found[1:]})


def test_1000_classes_are_a_whole_matrix(tmp_path: Path) -> None:
    table = ClassTable([f"c{i}" for i in range(1000)])
    table.add(taken_for([(999, 0)]))
    table.write_confusion(tmp_path / "c.csv", "--report")
    found = lines(tmp_path / "c.csv")
    assert [len(line) for line in found] == [1001] * 1001
    assert found[1000][:2] == ["c999", "1"]


def test_names_that_are_no_text_are_escaped_and_a_bad_place_is_refused(tmp_path: Path) -> None:
    table = ClassTable([os.fsdecode(b"\xff"), "b"])
    table.add(taken_for([(0, 1)]))
    table.write_classes(tmp_path / "classes.csv", "--report")
    assert [line[0] for line in lines(tmp_path / "classes.csv")] == ["class", "\\udcff", "b"]
    for write in (table.write_classes, table.write_confusion):
        with pytest.raises(InputError, match=rf"^--report: {tmp_path / 'no' / 'c.csv'} cannot be written: "):
            write(tmp_path / "no" / "c.csv", "--report")


def test_without_images_all_is_zero(tmp_path: Path) -> None:
    table = ClassTable(CLASSES)
    assert (table.count, table.top1_correct, table.worst(5), table.confusions(5)) == (0, 0, [], [])
    table.write_confusion(tmp_path / "c.csv", "--report")
    assert {value for line in lines(tmp_path / "c.csv")[1:] for value in line[1:]} == {"0"}
