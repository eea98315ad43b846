"""The tables of a report: results, seeds, recipes, problems."""

from __future__ import annotations

import statistics
from pathlib import Path

import pytest
from scipy.stats import binomtest

from helpers.run_folders import MACHINE, write_run
from resnext_train.config import load_recipe
from resnext_train.report.report_content import Report, build_report
from resnext_train.report.tables.summary_csv import summary_csv
from resnext_train.report.tables.table import Table
from resnext_train.report.tables.text_report import report_lines


def table_of(report: Report, key: str) -> Table:
    return next(table for table in report.tables if table.key == key)


def cells(table: Table) -> dict[str, dict[str, str]]:
    """Cells by row's first cell and column."""
    names = [column.name for column in table.columns]
    return {row[0]: dict(zip(names, row, strict=True)) for row in table.rows}


def cifar_run(folder: Path, accuracies: tuple[float, ...], seed: int = 0, status: str = "done") -> Path:
    """A run of the shipped resnet20."""
    name = "cifar/resnet20"
    epochs = int(load_recipe(name).train.epochs)
    return write_run(folder, accuracies, recipe=name, seed=seed, epochs=epochs, images=10_000, status=status)


def test_results_beside_the_published_error(tmp_path: Path) -> None:
    """ResNet paper, Table 6: ResNet-20 has an error of 8.75 %."""
    cifar_run(tmp_path / "a", (50.0, 92.0, 91.0))
    row = cells(table_of(build_report([tmp_path]), "results"))["a"]
    assert row["Best accuracy"] == "92.00"
    assert row["Best: correct"] == "9,200 of 10,000"
    assert row["Best: epoch"] == "2"
    assert row["Final accuracy"] == "91.00"
    interval = binomtest(9100, 10_000).proportion_ci(method="wilson")
    assert row["95 % interval"] == f"{100 * interval.low:.2f} to {100 * interval.high:.2f}"
    assert row["Published error"] == "8.75"
    assert row["Final error − published"] == "+0.25"
    assert row["Best error − published"] == "−0.75"
    assert row["Status"] == "done"


def test_a_run_that_has_not_finished_is_not_compared_with_the_published_error(tmp_path: Path) -> None:
    cifar_run(tmp_path / "a", (50.0, 92.0), status="running")
    row = cells(table_of(build_report([tmp_path]), "results"))["a"]
    assert row["Published error"] == "8.75"
    assert not {name for name in row if "−" in name}


def test_ten_crops_are_not_compared_with_one(tmp_path: Path) -> None:
    recipe, machine = "resnet34_shortcut_b", {**MACHINE, "classes": 1000}
    epochs = int(load_recipe(recipe).train.epochs)
    write_run(tmp_path / "a", (75.0,), recipe=recipe, epochs=epochs, machine=machine)
    report = build_report([tmp_path])
    row = cells(table_of(report, "results"))["a"]
    assert row["Published error"] == "24.52"
    assert not {name for name in row if "−" in name}
    assert "10 crops" in table_of(report, "published").rows[0][2]


def test_whose_weights_the_best_ones_are(tmp_path: Path) -> None:
    write_run(tmp_path / "a", (50.0, 80.0), ema=(60.0, 85.0), seed=1)
    write_run(tmp_path / "b", (50.0, 80.0))
    rows = cells(table_of(build_report([tmp_path]), "results"))
    assert (rows["a"]["Best: weights"], rows["b"]["Best: weights"]) == ("ema", "model")
    assert rows["a"]["Best: correct"] == "850 of 1,000"


def test_what_the_runs_were(tmp_path: Path) -> None:
    write_run(tmp_path / "a", seed=7)
    write_run(tmp_path / "b", machine=None)
    rows = cells(table_of(build_report([tmp_path]), "runs"))
    shown = {"Parameters": "1,500,000", "Multiply-adds": "60.00 M", "Seed": "7", "Time": "30 s", "Processes": "8"}
    assert shown.items() <= rows["a"].items()
    assert rows["b"]["Parameters"] == ""
    assert rows["b"]["Network"] == "resnext14_8x4d"


def test_means_and_deviations_over_seeds(tmp_path: Path) -> None:
    finals = (90.1, 91.3, 89.7)
    for seed, final in enumerate(finals):
        free = [f"data.workers={seed}", f"log.every={seed + 3}"]
        write_run(tmp_path / f"net-seed{seed}", (95.0 - seed, final), seed=seed, overrides=free)
    write_run(tmp_path / "net-seed3", (10.0,), seed=3, epochs=2, status="preempted")
    write_run(tmp_path / "net-seed4", (10.0, 10.0), seed=1)  # the same seed again
    write_run(tmp_path / "other", (77.0, 70.0), overrides=["optimizer.lr=0.5"])
    rows = cells(table_of(build_report([tmp_path]), "seeds"))
    assert rows.keys() == {"net", "other"}
    mean, deviation = statistics.mean(finals), statistics.stdev(finals)
    assert rows["net"]["Final accuracy"] == f"{mean:.2f} ± {deviation:.2f}" == "90.37 ± 0.83"
    assert rows["net"]["Best accuracy"] == "94.00 ± 1.00"
    assert (rows["net"]["n"], rows["net"]["Seeds"], rows["net"]["Left out"]) == ("3", "0, 1, 2", "2")
    assert (rows["other"]["Final accuracy"], rows["other"]["n"]) == ("70.00", "1")


def test_the_mean_over_seeds_beside_the_published_error(tmp_path: Path) -> None:
    for seed, final in enumerate((91.0, 91.4)):
        cifar_run(tmp_path / f"s{seed}", (final,), seed)
    (row,) = cells(table_of(build_report([tmp_path]), "seeds")).values()
    assert row["Mean final error − published"] == "+0.05"  # 8.80 above 8.75


def test_runs_on_other_data_are_no_seeds_of_each_other(tmp_path: Path) -> None:
    write_run(tmp_path / "a", seed=0)
    write_run(tmp_path / "b", seed=1, machine={**MACHINE, "train_images": 5})
    assert "seeds" not in {table.key for table in build_report([tmp_path]).tables}


def test_recipes_of_few_runs_have_a_column_each(tmp_path: Path) -> None:
    write_run(tmp_path / "a", overrides=["optimizer.lr=0.1", "schedule.name=step", "schedule.milestones=[2,3]"])
    write_run(tmp_path / "b", overrides=["optimizer.lr=0.2"], seed=4)
    table = table_of(build_report([tmp_path]), "differences")
    assert [column.name for column in table.columns] == ["Key", "a", "b"]
    rows = {row[0]: row[1:] for row in table.rows}
    assert rows["optimizer.lr"] == ("0.1", "0.2")
    assert rows["train.seed"] == ("0", "4")
    assert rows["schedule.milestones"] == ("[2.0, 3.0]", "absent")
    assert rows["schedule.name"] == ("step", "cosine")
    assert not rows.keys() & {"model.arch", "train.batch_size"}


def test_recipes_of_many_runs_have_a_line_for_each_value(tmp_path: Path) -> None:
    for i in range(12):
        rate = "0.3" if i in (2, 5) else "0.1"
        write_run(tmp_path / f"r{i}", (50.0,), seed=i, overrides=[f"optimizer.lr={rate}"])
    table = table_of(build_report([tmp_path]), "differences")
    assert table.rows == (
        ("optimizer.lr", "0.3", "2", "r2, r5"),
        ("optimizer.lr", "0.1", "10", "all others"),
        ("train.seed", "12 values: 0, 1, ..., 11", "12", ""),
    )


def test_a_single_run_has_nothing_to_compare(tmp_path: Path) -> None:
    report = build_report([write_run(tmp_path / "alone", wrong=range(9))])
    assert [table.key for table in report.tables] == ["results", "runs"]
    assert report.title == "Run alone"


def test_runs_of_a_folder_are_in_natural_order_and_given_ones_as_given(tmp_path: Path) -> None:
    folders = [write_run(tmp_path / f"seed{i}", (50.0,), seed=i) for i in (2, 10, 1)]
    assert [record.name for record in build_report([tmp_path]).records] == ["seed1", "seed2", "seed10"]
    assert [record.name for record in build_report(folders).records] == ["seed2", "seed10", "seed1"]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("recipe.yaml", b"model: {arch: resnext14_8x4d\n", "recipe.yaml"),
        ("recipe.yaml", b"model: 3\ntrain: [1]\nema: null\n", "not one of this version"),
        ("recipe.yaml", b"\xff\xfe", "recipe.yaml"),
        ("recipe.yaml", b"model: {arch: resnext14_8x4d, wings: 2}\ntrain: {seed: 3}\n", "not one of this version"),
        ("recipe.yaml", None, "recipe.yaml"),
        ("log.jsonl", b"\0" * 500 + b'\n{"event": "epoch", "step": 3}\n{"ev', "1 damaged lines"),
        ("log.jsonl", b"", ""),
        ("log.jsonl", None, ""),
        ("summary.json", b'{"best": {"count": 0, "top1_correct": 3}, "last": 7, "net', "summary.json"),
        ("summary.json", b'{"best": {"count": 0, "top1_correct": 3}, "last": 7, "network": "x", "versions": 3}', ""),
        ("summary.json", b"[]", "summary.json"),
        ("summary.json", None, ""),
        ("state.json", b"running", "state.json"),
        ("state.json", None, ""),
    ],
)
def test_a_damaged_run_leaves_the_others_as_they_are(
    tmp_path: Path, name: str, content: bytes | None, said: str
) -> None:
    write_run(tmp_path / "whole", seed=1, wrong=range(10))
    damaged = write_run(tmp_path / "damaged", wrong=range(20))
    if content is None:
        (damaged / name).unlink()
    else:
        (damaged / name).write_bytes(content)
    report = build_report([tmp_path])
    rows = cells(table_of(report, "results"))
    assert rows["whole"]["Best accuracy"] == "90.00"
    assert rows.keys() == {"whole", "damaged"}
    problems = [row for table in report.tables if table.key == "problems" for row in table.rows]
    assert [row[0] for row in problems] == ["damaged"] * bool(said)
    assert all(said in row[1] for row in problems)
    told = report_lines(report)
    assert max(map(len, told)) <= 80
    assert summary_csv(report.runs, report.groups).count("\n") == 3
