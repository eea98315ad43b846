"""The table of deviations of runs."""

from __future__ import annotations

import json
from pathlib import Path

from resnext_train.config import RunFacts, deviations, load_recipe
from resnext_train.report.deviation_table import deviation_table
from resnext_train.report.run_record import read_runs


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
    assert [column.name for column in table.columns] == ["point", "a", "b", "there", "source", "effect"]
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
    assert [column.name for column in table.columns][:3] == ["point", "here", "there"]
    assert [row[0] for row in table.rows] == ["padding", "BN running statistics"]


def test_runs_that_name_no_source(tmp_path: Path) -> None:
    write_run(tmp_path / "a", "smoke")
    assert deviation_table(read_runs([str(tmp_path / "a")])) is None
