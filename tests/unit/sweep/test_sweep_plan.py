"""A sweep is all combinations, each named by what differs, and checked before the first run starts."""

from __future__ import annotations

import shlex
from contextlib import nullcontext
from pathlib import Path

import pytest

from helpers.runs import SMALL
from resnext_train.config import load_recipe
from resnext_train.errors import InputError
from resnext_train.sweep.sweep_plan import PlannedRun, plan_sweep, read_axis, read_seeds


def names(runs: list[PlannedRun], folder: Path) -> list[str]:
    return [str(run.folder.path.relative_to(folder)) for run in runs]


@pytest.mark.parametrize(("text", "seeds"), [("0:3", (0, 1, 2)), ("7", (7,)), ("5,1", (5, 1)), ("4:5", (4,))])
def test_seeds(text: str, seeds: tuple[int, ...]) -> None:
    assert read_seeds(text) == seeds


@pytest.mark.parametrize("text", ["", "3:3", "3:1", "a", "1:", ":3", "1,1", "-1", "0:99999999", "1,,2", "²"])
def test_what_names_no_seeds_is_refused(text: str) -> None:
    with pytest.raises(InputError):
        read_seeds(text)


@pytest.mark.parametrize(
    ("text", "key", "values"),
    [
        ("optimizer.lr=0.05,0.1", "optimizer.lr", ("0.05", "0.1")),
        ("schedule.milestones=[1, 2],[3]", "schedule.milestones", ("[1, 2]", "[3]")),
        ("data.root=a=b", "data.root", ("a=b",)),
        ("data.root='a,b',c", "data.root", ("'a,b'", "c")),
    ],
)
def test_values_of_a_key(text: str, key: str, values: tuple[str, ...]) -> None:
    axis = read_axis(text)
    assert (axis.key, axis.values) == (key, values)


@pytest.mark.parametrize("text", ["", "lr=1", "optimizer.lr"])
def test_what_sets_no_key_is_refused(text: str) -> None:
    with pytest.raises(InputError):
        read_axis(text)


def test_all_combinations_with_the_first_seed_first(tmp_path: Path) -> None:
    axes = [read_axis("optimizer.lr=0.05,0.1")]
    runs = plan_sweep(["smoke", "cifar/resnet20"], axes, (0, 1), ["train.epochs=2"], tmp_path)
    one = ["smoke-lr0.05", "smoke-lr0.1", "cifar/resnet20-lr0.05", "cifar/resnet20-lr0.1"]
    assert names(runs, tmp_path) == [f"{name}-seed{seed}" for seed in (0, 1) for name in one]
    last = runs[-1]
    recipe = load_recipe(last.config, last.overrides)
    assert (recipe.optimizer.lr, recipe.train.seed, recipe.train.epochs) == (0.1, 1, 2)


def test_a_name_says_the_section_where_two_keys_end_alike(tmp_path: Path) -> None:
    axes = [read_axis("augment.size=24,32"), read_axis("data.size=40,48")]
    assert names(plan_sweep(["smoke"], axes, (), [], tmp_path), tmp_path) == [
        "smoke-augment.size24-data.size40",
        "smoke-augment.size24-data.size48",
        "smoke-augment.size32-data.size40",
        "smoke-augment.size32-data.size48",
    ]


def test_a_key_with_one_value_is_an_override(tmp_path: Path) -> None:
    runs = plan_sweep(["smoke"], [read_axis("optimizer.lr=0.1,0.2"), read_axis("data.size=40")], (), [], tmp_path)
    assert names(runs, tmp_path) == ["smoke-lr0.1", "smoke-lr0.2"]
    assert all("data.size=40" in run.overrides for run in runs)


def test_no_value_leads_out_of_the_folder(tmp_path: Path) -> None:
    axes = [read_axis("data.root=/a/../b c,x")]
    assert names(plan_sweep(["cifar/resnet20"], axes, (), [], tmp_path), tmp_path) == [
        "cifar/resnet20-roota_.._b_c",
        "cifar/resnet20-rootx",
    ]


@pytest.mark.parametrize(
    ("configs", "sets", "seeds", "overrides"),
    [
        (["smoke", "smoke"], [], (), []),
        (["smoke"], ["optimizer.lr=0.1,0.1"], (), []),
        (["smoke"], ["optimizer.lr=0.1", "optimizer.lr=0.2"], (), []),
        (["smoke"], ["train.seed=1,2"], (0, 1), []),
        (["smoke"], ["optimizer.lr=0.1,quick"], (), []),
        (["smoke"], ["optimizer.larry=0.1"], (), []),
        (["smoke", "no_such_recipe"], [], (), []),
        (["smoke"], [], (), ["model.arch=resnext15"]),
        (["smoke"], ["train.epochs=1,2", "train.batch_size=64,32"], tuple(range(5000)), []),
    ],
)
def test_a_mistake_is_told_before_anything_runs(
    tmp_path: Path, configs: list[str], sets: list[str], seeds: tuple[int, ...], overrides: list[str]
) -> None:
    with pytest.raises(InputError):
        plan_sweep(configs, [read_axis(text) for text in sets], seeds, overrides, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_run_of_another_recipe_is_not_taken_for_a_part_of_the_sweep(tmp_path: Path) -> None:
    held = tmp_path / "smoke-seed1"
    held.mkdir()
    (held / "recipe.yaml").write_text(load_recipe("smoke", ["train.epochs=9", "train.seed=1"]).to_yaml())
    with pytest.raises(InputError, match="9"):
        plan_sweep(["smoke"], [], (0, 1), [], tmp_path)
    plan_sweep(["smoke"], [], (0, 1), ["train.epochs=9"], tmp_path)


@pytest.mark.parametrize(("status", "taken"), [("done", True), ("preempted", False)])
def test_a_run_that_is_done_needs_no_checkpoints(tmp_path: Path, status: str, taken: bool) -> None:
    held = tmp_path / "smoke-seed1"
    held.mkdir()
    (held / "recipe.yaml").write_text(load_recipe("smoke", ["train.seed=1"]).to_yaml())
    (held / "log.jsonl").write_text('{"event": "checkpoint", "step": 1}\n')
    (held / "state.json").write_text(f'{{"status": "{status}", "step": 1}}')
    with nullcontext() if taken else pytest.raises(InputError, match="gone"):
        plan_sweep(["smoke"], [], (0, 1), [], tmp_path)
    with pytest.raises(InputError, match="another recipe"):
        plan_sweep(["smoke"], [], (0, 1), ["train.epochs=9"], tmp_path)


def test_a_command_line_is_one_for_shells(tmp_path: Path) -> None:
    (run,) = plan_sweep(["smoke"], [], (3,), [*SMALL, "data.titles=it's here"], tmp_path / "a b", 2)
    words = shlex.split(run.command())
    assert words[:2] == ["resnext", "train"]
    assert words[2:8] == ["--config", "smoke", "--out", f"{tmp_path}/a b/smoke-seed3", "--procs", "2"]
    assert "data.titles=it's here" in words
    assert words[-1] == "train.seed=3"


def test_images_that_are_not_there_are_told_before_the_first_run(tmp_path: Path) -> None:
    for overrides in ([], [f"data.root={tmp_path / 'none'}"]):
        plan_sweep(["cifar/resnet20"], [], (0, 1), overrides, tmp_path)
        with pytest.raises(InputError):
            plan_sweep(["cifar/resnet20"], [], (0, 1), overrides, tmp_path, starts=True)
    plan_sweep(["cifar/resnet20"], [], (0, 1), [f"data.root={tmp_path}"], tmp_path, starts=True)
