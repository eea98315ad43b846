"""What is known of a run, whatever its files lack."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from scipy.stats import binomtest

from helpers.run_folders import MACHINE, write_run
from resnext_train.config import load_recipe
from resnext_train.report.run_record import read_run
from resnext_train.report.run_values import EvalResult, RunValues


def values_of(folder: Path) -> RunValues:
    return RunValues(read_run(folder))


def test_a_finished_run(tmp_path: Path) -> None:
    run = values_of(write_run(tmp_path / "a", (50.0, 92.0, 90.0), seed=3))
    assert (run.status, run.seed, run.epochs_finished, run.epochs_planned) == ("done", 3, 3, 3)
    assert (run.network_title, run.classes, run.device) == ("ResNeXt-14 (8×4d)", 10, "NVIDIA H100 80GB HBM3")
    assert (run.seconds, run.images_per_s) == (30.0, 2400.0)
    assert run.best == EvalResult(2, 1000, 920, 970)
    assert run.final == EvalResult(3, 1000, 900, 950)
    assert run.errors == [50.0, 8.0, 10.0]


def test_intervals_are_those_of_scipy(tmp_path: Path) -> None:
    final = values_of(write_run(tmp_path / "a", (90.0,))).final
    assert final is not None
    expected = binomtest(900, 1000).proportion_ci(method="wilson")
    assert final.interval == pytest.approx((100 * expected.low, 100 * expected.high))
    assert (final.accuracy, final.error) == (90.0, 10.0)


def test_the_average_of_the_weights_is_final_and_the_better_of_both_best(tmp_path: Path) -> None:
    run = values_of(write_run(tmp_path / "a", (50.0, 92.0, 90.0), ema=(20.0, 80.0, 91.0)))
    assert run.best == EvalResult(2, 1000, 920, 970, "model")
    assert run.final == EvalResult(3, 1000, 910, 960, "ema")
    assert [result.weights for result in run.last_results] == ["model", "ema"]
    better = values_of(write_run(tmp_path / "b", (50.0, 91.0), ema=(20.0, 93.0)))
    assert better.best == EvalResult(2, 1000, 930, 980, "ema")
    equal = values_of(write_run(tmp_path / "c", (50.0,), ema=(50.0,)))
    assert equal.best == EvalResult(1, 1000, 500, 550, "model")


@pytest.mark.parametrize("ema", [None, (20.0, 93.0, 88.0)])
def test_the_log_tells_the_same_as_the_summary(tmp_path: Path, ema: tuple[float, ...] | None) -> None:
    folder = write_run(tmp_path / "a", (50.0, 92.0, 90.0), ema=ema)
    told = values_of(folder)
    (folder / "summary.json").unlink()
    logged = values_of(folder)
    assert (logged.best, logged.last_results, logged.seconds) == (told.best, told.last_results, told.seconds)


def test_a_run_that_goes_on_is_told_by_its_log(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "a", (50.0, 92.0), epochs=9, status="running")
    summary = json.loads((folder / "summary.json").read_text())
    stale = {**summary, "best": {**summary["best"], "epoch": 1, "top1_correct": 500}, "last": None, "seconds": 3.0}
    (folder / "summary.json").write_text(json.dumps(stale))
    run = values_of(folder)
    assert run.best == EvalResult(2, 1000, 920, 970)
    assert run.final == run.best
    assert (run.status, run.epochs_finished, run.epochs_planned, run.seconds) == ("killed", 2, 9, 20.0)


@pytest.mark.parametrize(
    ("recipe", "error", "by_other_views"),
    [
        ("cifar/resnet20", 8.75, False),  # ResNet paper, Table 6
        ("cifar/resnet110", 6.61, False),  # there the mean; 6.43 is the best of five runs
        ("resnext50_32x4d", 22.2, False),  # ResNeXt paper, Table 3
        ("resnet34_shortcut_b", 24.52, True),  # ResNet paper, Table 3: ten crops
        ("pycls/resnext50_32x4d", 21.9, False),  # stated as an accuracy
        ("imagenet5k/resnet50", 45.5, False),  # ResNeXt paper, Table 6
        ("googlenet", None, False),  # top-5 alone
        ("resnet200", None, False),  # that of another network
    ],
)
def test_published_errors(tmp_path: Path, recipe: str, error: float | None, by_other_views: bool) -> None:
    epochs = load_recipe(recipe).train.epochs
    classes = 5000 if "5k" in recipe else 10 if "cifar" in recipe else 1000
    where = ["data.root=/data/elsewhere", "data.workers=3", "checkpoint.keep=2", f"train.epochs={epochs}"]
    machine = {**MACHINE, "classes": classes}
    folder = write_run(tmp_path / "a", (75.0,), recipe=recipe, overrides=where, epochs=int(epochs), machine=machine)
    published = values_of(folder).published
    assert published is not None
    assert (published.recipe, published.by_other_views) == (recipe, by_other_views)
    assert published.error == error


def test_another_recipe_has_nothing_published(tmp_path: Path) -> None:
    machine = {**MACHINE, "classes": 1000}
    changed = write_run(tmp_path / "a", (75.0,), recipe="resnext50_32x4d", epochs=90, machine=machine)
    assert values_of(changed).entry is None
    data = write_run(tmp_path / "b", (75.0,), recipe="resnext50_32x4d", epochs=100, machine={**MACHINE, "classes": 7})
    assert values_of(data).entry is None


@pytest.mark.parametrize("value", [None, "many", [], True, float("nan"), 10**400, {"title": 3}])
def test_values_of_another_kind_are_unknown(tmp_path: Path, value: object) -> None:
    folder = write_run(tmp_path / "a")
    keys = ("best", "last", "seconds", "images_per_s", "network", "classes", "world_size", "host", "epochs")
    (folder / "summary.json").write_text(json.dumps(dict.fromkeys(keys, value)))
    (folder / "log.jsonl").write_text(
        "".join(
            json.dumps({"event": event, "step": 5, **dict.fromkeys(("epoch", "ema", "seconds", "total_steps"), value)})
            + "\n"
            for event in ("start", "epoch", "end")
        )
    )
    run = values_of(folder)
    assert (run.best, run.final, run.last_results, run.errors) == (None, None, (), [])
    assert (run.seconds, run.images_per_s) == (None, None)
    assert run.network_title == "resnext14_8x4d"
    assert run.epochs_finished == 0
