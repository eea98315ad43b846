"""Default names of runs, and what names are taken."""

from __future__ import annotations

from pathlib import Path

import pytest

from resnext_train.config import default_name, is_run_name, load_recipe_with_notes, name_part


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        ([], "mine"),
        (["train.seed=7"], "mine"),
        (["train.seed=0"], "mine-seed0"),
        (["train.seed=0", "train.seed=12"], "mine-seed12"),
        (["train.epochs=3"], "mine"),
    ],
)
def test_a_seed_that_the_command_changes_is_in_the_name(tmp_path: Path, overrides: list[str], name: str) -> None:
    (tmp_path / "base.yaml").write_text("train: {seed: 5}\n")
    path = tmp_path / "mine.yaml"
    path.write_text("base: base.yaml\nmodel: {arch: resnet20}\ntrain: {seed: 7}\n")
    assert default_name(str(path), load_recipe_with_notes(str(path), overrides)) == name


@pytest.mark.parametrize(("seed", "name"), [("0", "cifar/resnet20"), ("3", "cifar/resnet20-seed3")])
def test_a_recipe_without_a_seed_has_the_default_one(seed: str, name: str) -> None:
    assert default_name("resnet20", load_recipe_with_notes("cifar/resnet20", [f"train.seed={seed}"])) == name


@pytest.mark.parametrize(
    ("name", "taken"), [("a", True), ("a/b-1", True), ("", False), ("/a", False), ("a/../b", False)]
)
def test_a_name_is_a_place_below_runs(name: str, taken: bool) -> None:
    assert is_run_name(name) is taken


@pytest.mark.parametrize(("value", "part"), [("0.05", "0.05"), ("[5, 8]", "5_8"), ("/", "_"), ("é-1e+3", "é-1e+3")])
def test_a_value_in_a_name_is_nothing_that_a_shell_reads(value: str, part: str) -> None:
    assert name_part(value) == part
