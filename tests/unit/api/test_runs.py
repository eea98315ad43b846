"""Training and evaluation from a program are the commands."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import resnext_train as rt
from helpers.commands import evaluate
from helpers.runs import SMALL
from resnext_train.errors import InputError


def test_training_returns_the_summary_and_resumes(tmp_path: Path, whole: Path) -> None:
    recipe = rt.Recipe.load("smoke", *SMALL, "train.epochs=1")
    summary = rt.train(recipe, out=tmp_path / "run")
    assert summary == json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["steps"] == 3
    assert type(summary["versions"]["torch"]) is str
    with pytest.raises(InputError, match="train"):
        rt.train(recipe, out=tmp_path / "run", overrides=["train.epochs=2"])
    with pytest.raises(InputError, match="holds a run"):
        rt.train(recipe, out=tmp_path / "run", resume="never")
    with pytest.raises(InputError, match="out: "):
        rt.train(recipe)
    with pytest.raises(InputError, match="epochs"):
        rt.train("smoke", tmp_path / "other", ["train.epoch=3"])
    assert not (tmp_path / "other").exists()


def test_evaluation_returns_what_the_command_writes(whole: Path, tmp_path: Path) -> None:
    assert evaluate(["eval.crop=28", "--ckpt", str(whole), "--json", str(tmp_path / "e.json")]) == 0
    written = json.loads((tmp_path / "e.json").read_text())
    returned = rt.evaluate(whole, overrides=["eval.crop=28"])
    assert returned.pop("images_per_s") > 0
    assert written.pop("images_per_s") > 0
    assert returned == written
    last = whole / "checkpoints" / "last.pt"
    both = rt.evaluate([whole, last])
    assert [member["checkpoint"] for member in both["members"]] == [str(whole / "checkpoints" / "best.pt"), str(last)]
    for wrong in ({"path": tmp_path}, {"path": whole, "data": tmp_path / "none"}, {"path": whole, "recipe": "none"}):
        with pytest.raises(InputError):
            rt.evaluate(**wrong)  # type: ignore[arg-type]
