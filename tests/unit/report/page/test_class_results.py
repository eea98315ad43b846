"""The tables that `resnext eval` wrote are read as they were counted, and damage is said."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from helpers.run_folders import write_evaluation
from resnext_train.evaluation.class_table import ClassTable
from resnext_train.evaluation.image_results import ImageResults
from resnext_train.report.page.class_results import ITSELF, OTHERS, read_classes, read_confusion


def write_tables(folder: Path, pairs: list[tuple[int, int, int]], classes: int) -> Path:
    """Tables of (label, predicted, images), as `resnext eval` writes them."""
    labels = np.repeat([label for label, _, _ in pairs], [n for _, _, n in pairs])
    predicted = np.repeat([p for _, p, _ in pairs], [n for _, _, n in pairs])
    n = len(labels)
    table = ClassTable([f"c{i}" for i in range(classes)], [f"class {i}, of many" for i in range(classes)])
    ranks, zeros = (labels != predicted).astype(int), np.zeros(n)
    table.add(ImageResults(np.arange(n), labels, ranks, zeros, predicted[:, None], zeros[:, None]))
    folder.mkdir()
    table.write_classes(folder / "classes.csv", "--out")
    table.write_confusion(folder / "confusion.csv", "--out")
    return folder


def test_classes_come_with_the_least_accurate_first(tmp_path: Path) -> None:
    folder = write_tables(tmp_path / "e", [(0, 0, 3), (0, 1, 1), (1, 1, 5), (3, 1, 2)], 4)
    found = [(c.name, c.title, c.correct, c.count, c.accuracy) for c in read_classes(folder)]
    assert found == [
        ("c3", "class 3", 0, 2, 0.0),
        ("c0", "class 0", 3, 4, 75.0),
        ("c1", "class 1", 5, 5, 100.0),
    ]


def test_a_small_confusion_matrix_is_whole(tmp_path: Path) -> None:
    folder = write_tables(tmp_path / "e", [(0, 0, 3), (0, 2, 1), (1, 1, 4), (1, 0, 1)], 3)
    part = read_confusion(folder, read_classes(folder))
    assert part is not None
    assert part.labels == ("class 0", "class 1")
    assert part.predicted == ("class 0", "class 1", "c2")
    assert part.counts == ((3, 0, 1), (1, 4, 0))
    assert part.shares == ((75, 0, 25), (20, 80, 0))
    assert part.own == (0, 1)


@pytest.mark.parametrize("classes", [30, 1001], ids=["matrix", "list"])
def test_of_many_classes_the_worst_are_shown_with_what_they_were_taken_for(tmp_path: Path, classes: int) -> None:
    pairs = [(label, label, 9) for label in range(3, 30)]
    pairs += [(0, 0, 5), (0, 7, 5), (1, 1, 6), (1, 7, 3), (1, 8, 1), (2, 2, 7), (2, 9, 2), (2, 0, 1)]
    folder = write_tables(tmp_path / "e", pairs, classes)
    part = read_confusion(folder, read_classes(folder), most=3)
    assert part is not None
    assert part.labels == ("class 0", "class 1", "class 2")
    assert part.predicted == (ITSELF, "class 7", OTHERS)
    assert part.counts == ((5, 5, 0), (6, 3, 1), (7, 0, 3))
    assert part.own == (0, 0, 0)
    assert [sum(row) for row in part.shares] == pytest.approx([100] * 3)


def test_without_tables_there_is_nothing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_classes(tmp_path)


@pytest.mark.parametrize(
    "damage",
    [
        "class,title,count,top1_correct\na,a,x,1\n",
        "class,title,count,top1_correct\na,a,3\n",
        "class,title,count,top1_correct\na,a,3,4\n",
        "class,title,count,top1_correct\na,a,-3,-4\n",
        "class,title,count,top1_correct\na,a,3,1,7,8\n",
        "class,title,count,top1_correct\na,a,1" + "0" * 400 + ",1\n",
        'class,title,count,top1_correct\na,"a,3,1\n' + "b,b,3,1\n" * 20_000,  # more than csv takes in a field
        "\x00\xff\n1,2\n",
    ],
)
def test_damaged_classes_are_said(tmp_path: Path, damage: str) -> None:
    (tmp_path / "classes.csv").write_text(damage)
    with pytest.raises(ValueError, match=r"classes\.csv is damaged"):
        read_classes(tmp_path)


@pytest.mark.parametrize("damage", ["", "a,b\n", "label,class_0000\nclass_0000\n", "label,class_0000\nclass_0000,-1\n"])
def test_damaged_confusions_are_said(tmp_path: Path, damage: str) -> None:
    write_evaluation(tmp_path / "e", 40, {1, 2})
    (tmp_path / "e" / "confusion.csv").write_text(damage)
    with pytest.raises(ValueError, match=r"confusion\.csv is damaged"):
        read_confusion(tmp_path / "e", read_classes(tmp_path / "e"))
