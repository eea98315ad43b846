"""The table of deviations of runs."""

from __future__ import annotations

import json
from pathlib import Path

from resnext_train.config import RunFacts, deviations, load_recipe
from resnext_train.report.run_record import read_runs
from resnext_train.report.tables.deviation_table import deviation_table


def write_run(folder: Path, name: str, *overrides: str, logs: bool = False) -> None:
    """Write the folder of a run in fp32, as one that logged its deviations or as an older one."""
    recipe = load_recipe(name, list(overrides))
    folder.mkdir(parents=True)
    (folder / "recipe.yaml").write_text(recipe.to_yaml())
    if logs:
        found = [deviation.to_dict() for deviation in deviations(recipe, RunFacts("fp32"))]
        (folder / "log.jsonl").write_text(json.dumps({"event": "start", "step": 0, "deviations": found}) + "\n")


def test_runs_side_by_side(tmp_path: Path) -> None:
    write_run(tmp_path / "a", "cifar/resnet20", logs=True)
    write_run(tmp_path / "b", "cifar/resnet20", "train.epochs=10")
    write_run(tmp_path / "c", "smoke")
    table = deviation_table(read_runs([str(tmp_path)]))
    assert table is not None
    assert [column.name for column in table.columns] == ["Point", "a", "b", "There", "Source", "Effect"]
    rows = {row[0]: row[1:] for row in table.rows}
    assert rows["train.epochs"][:3] == ("", "10", "164")
    assert rows["precision"][:3] == ("", "auto: bf16, or else fp16, on GPUs", "fp32")
    same = "the mean colour, rounded to whole levels"
    assert rows["padding"][:3] == (same, same, "zeros after the normalisation")
    assert all(len(row) == len(table.columns) for row in table.rows)
    assert "fb.resnet.torch on CIFAR" in table.caption


def test_one_run(tmp_path: Path) -> None:
    write_run(tmp_path / "a", "cifar/resnet20", logs=True)
    table = deviation_table(read_runs([str(tmp_path / "a")]))
    assert table is not None
    assert [column.name for column in table.columns][:3] == ["Point", "Here", "There"]
    assert [row[0] for row in table.rows] == ["padding", "BN running statistics"]


def test_runs_that_name_no_source(tmp_path: Path) -> None:
    write_run(tmp_path / "a", "smoke")
    assert deviation_table(read_runs([str(tmp_path / "a")])) is None


def test_runs_with_the_same_deviations_share_a_column(tmp_path: Path) -> None:
    for name, overrides in {"a": [], "b": ["train.seed=1"], "c": ["train.epochs=10"]}.items():
        write_run(tmp_path / name, "cifar/resnet20", *overrides)
    table = deviation_table(read_runs([str(tmp_path)]))
    assert table is not None
    assert [column.name for column in table.columns][1:3] == ["a, b", "c"]


def test_many_different_runs_have_a_line_for_each_value(tmp_path: Path) -> None:
    for epochs in range(10, 18):
        write_run(tmp_path / str(epochs), "cifar/resnet20", f"train.epochs={epochs}")
    table = deviation_table(read_runs([str(tmp_path)]))
    assert table is not None
    assert [column.name for column in table.columns] == ["Point", "Here", "There", "Source", "Effect", "Runs"]
    of_epochs = {row[1]: row[5] for row in table.rows if row[0] == "train.epochs"}
    assert of_epochs == {str(epochs): str(epochs) for epochs in range(10, 18)}
    assert next(row for row in table.rows if row[0] == "padding")[5] == "10, 11, 12, 13, 14, 15 and 2 more"
