"""The papers' tables: against the recipes' headers, the papers' own sentences, and the sizes of the networks."""

from __future__ import annotations

import re

import pytest

from resnext_train.config import read_entry
from resnext_train.report.papers.paper_table_data import TABLES, TRAINING, Row

ROWS = [(name, row) for name, table in TABLES.items() for row in table.rows]
OURS = [pytest.param(row, id=f"{name} {' '.join(row.labels)}") for name, row in ROWS if row.recipe]


@pytest.mark.parametrize("row", OURS)
def test_published_errors_are_those_of_the_recipes_header(row: Row) -> None:
    assert row.recipe
    result = read_entry(row.recipe).result
    stated = re.findall(r"top-1 error ([\d.]+) %(?:, top-5 error ([\d.]+) %)?", result)
    assert stated, result
    published = [re.findall(r"[\d.]+", text) for text in row.published]
    if len(published[0]) > 1:  # best (mean ± spread)
        best, mean, spread = published[0]
        assert f"top-1 error {best} % (the best of five runs, mean {mean} ± {spread};" in result
        return
    for pair in stated:
        rounded = [
            f"{float(of):.{len(mine[0].split('.')[1])}f}" for of, mine in zip(pair, published, strict=False) if of
        ]
        if rounded == [mine[0] for mine in published]:
            return
    pytest.fail(f"{row.published} is none of {stated}")


def of(name: str, *labels: str, measure: int = 0) -> float:
    """The published error of the row with these labels."""
    (row,) = (row for row in TABLES[name].rows if row.labels == labels)
    return float(row.published[measure])


@pytest.mark.parametrize(
    ("greater", "smaller", "points"),
    [
        # ResNeXt paper, section 5.1
        (("3", "ResNet-50", "1×64d"), ("3", "ResNeXt-50", "32×4d"), 1.7),
        (("3", "ResNet-101", "1×64d"), ("3", "ResNeXt-101", "32×4d"), 0.8),
        (("4", "ResNet-101", "1×64d"), ("4", "ResNet-200", "1×64d"), 0.3),
        (("4", "ResNet-101", "1×64d"), ("4", "ResNet-101, wider", "1×100d"), 0.7),
        (("4", "ResNet-101", "1×64d"), ("4", "ResNeXt-101", "2×64d"), 1.3),
        (("residual", "ResNeXt-50", "32×4d", "without"), ("residual", "ResNeXt-50", "32×4d", "with"), 3.9),
        # Section 5.2
        (("6", "ResNet-50", "1×64d", "5K-way"), ("6", "ResNeXt-50", "32×4d", "5K-way"), 3.2),
        (("6", "ResNet-101", "1×64d", "5K-way"), ("6", "ResNeXt-101", "32×4d", "5K-way"), 2.3),
        # ResNet paper, section 4.1
        (("resnet-2", "18", "ResNet"), ("resnet-2", "34", "ResNet"), 2.8),
        (("resnet-2", "34", "plain"), ("resnet-2", "34", "ResNet"), 3.5),
    ],
)
def test_differences_are_those_of_the_papers_text(
    greater: tuple[str, ...], smaller: tuple[str, ...], points: float
) -> None:
    assert of(*greater) - of(*smaller) == pytest.approx(points, abs=0.051)


def test_best_results_are_those_of_the_papers_text() -> None:
    """ResNeXt paper, sections 5.1 to 5.3; ResNet paper, sections 4.1 and 4.2."""
    assert of("5", "ResNeXt-101, 64×4d", "320×320", measure=1) == 4.4
    assert [of("6", "ResNeXt-101", "32×4d", "1K-way", measure=n) for n in (0, 1)] == [22.2, 5.7]
    assert of("7", "ResNeXt-29, 16×64d", "68.1 M", "CIFAR-10") == 3.58
    assert of("7", "ResNeXt-29, 16×64d", "68.1 M", "CIFAR-100") == 17.31
    assert of("resnet-4", "ResNet-152", measure=1) == 4.49
    assert of("resnet-6", "ResNet", "1202", "19.4 M") == 7.93


def test_rows_of_other_networks_are_there_as_the_papers_print_them() -> None:
    others = {name: [row.errors for row in table.rows if row.recipe is None] for name, table in TABLES.items()}
    assert {name: rows for name, rows in others.items() if rows} == {
        "7": ["4.17", "20.50"],
        "resnet-3": ["28.07 / 9.33", "– / 9.15", "24.27 / 7.38"],
        "resnet-4": ["– / 8.43", "– / 7.89", "24.4 / 7.1", "21.59 / 5.71", "21.99 / 5.81"],
        "resnet-6": ["9.38", "8.81", "8.22", "8.39", "7.54 (7.72±0.16)", "8.80"],
    }
    assert all(TABLES[name].note for name, rows in others.items() if rows)


@pytest.mark.parametrize("name", TABLES)
def test_rows_fit_their_table(name: str) -> None:
    table = TABLES[name]
    assert len({(row.labels) for row in table.rows}) == len(table.rows)
    for row in table.rows:
        assert len(row.labels) == len(table.labels), row
        assert len(row.published) == len(table.measures), row
        assert row.runs == 1 or row.protocol == TRAINING, row


@pytest.mark.parametrize("row", [r for name, r in ROWS if name in ("7", "resnet-6") and r.recipe])
def test_the_recipes_networks_have_the_printed_sizes(row: Row) -> None:
    from resnext_train.models.complexity import measure

    assert row.recipe
    if row.recipe == "cifar/resnet1202":
        pytest.skip("takes seconds; test_recipes.py computes it by hand")
    entry = read_entry(row.recipe)
    printed = next(label for label in row.labels if label.endswith(" M")).removesuffix(" M")
    parameters = measure(entry.recipe.model, entry.classes or 0, 32).parameters / 1e6
    classifier = 0.1 if "100" in row.recipe.rpartition("_")[2] else 0  # the paper prints the size for 10 classes
    assert parameters - classifier == pytest.approx(float(printed), rel=0.03)


def test_runs_are_as_many_as_in_the_papers() -> None:
    """Captions of the ResNeXt paper's Table 7 and the ResNet paper's Table 6."""
    several = {(name, row.recipe): row.runs for name, row in ROWS if row.runs > 1}
    assert set(several.values()) == {5, 10}
    assert [key for key, runs in several.items() if runs == 5] == [("resnet-6", "cifar/resnet110")]
    assert {name for (name, _), runs in several.items() if runs == 10} == {"7"}
    assert all(row.runs == 10 for row in TABLES["7"].rows if row.recipe)
