"""The numbers that plots show are those of the log, however little of it there is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.run_folders import write_run
from resnext_train.report.page.run_curves import (
    Curve,
    by_accuracy,
    error_curves,
    points_for,
    skipped_curve,
    step_curve,
    thinned,
)
from resnext_train.report.run_record import RunRecord, read_run
from resnext_train.report.run_values import RunValues


def logged(folder: Path, *events: dict[str, Any] | str) -> RunRecord:
    folder.mkdir()
    lines = (event if isinstance(event, str) else json.dumps(event) for event in events)
    (folder / "log.jsonl").write_text("".join(f"{line}\n" for line in lines))
    return read_run(folder)


def test_errors_are_those_of_the_log_counts(tmp_path: Path) -> None:
    curves = error_curves(
        logged(
            tmp_path / "run",
            {"event": "epoch", "step": 10, "epoch": 1, "train_top1": 20.5, "val_count": 8, "val_top1_correct": 3},
            {"event": "epoch", "step": 20, "epoch": 2, "train_top1": 40.0},
            {
                **{"event": "epoch", "step": 30, "epoch": 3, "train_top1": 50.0, "val_count": 8, "val_top1_correct": 6},
                "ema": {"top1": 87.5},
            },
        )
    )
    assert curves.train.x.tolist() == [1, 2, 3]
    assert curves.train.y.tolist() == [79.5, 60, 50]
    assert curves.validation.x.tolist() == [1, 3]
    assert curves.validation.y.tolist() == [62.5, 25]
    assert (curves.average.x.tolist(), curves.average.y.tolist()) == ([3], [12.5])


def test_steps_stand_at_their_part_of_an_epoch(tmp_path: Path) -> None:
    steps = [{"event": "step", "step": n, "epoch": 1 + (n - 1) // 4, "data_wait": n / 100} for n in (2, 4, 6)]
    run = logged(tmp_path / "run", {"event": "start", "step": 0, "steps_per_epoch": 4}, *steps)
    curve = step_curve(run, "data_wait", 100)
    assert curve.x.tolist() == [0.5, 1, 1.5]
    assert curve.y.tolist() == pytest.approx([2, 4, 6])


def test_without_a_start_the_epochs_tell_how_many_steps_they_have(tmp_path: Path) -> None:
    steps = [{"event": "step", "step": n, "epoch": 1, "lr": 0.1} for n in (5, 10)]
    run = logged(tmp_path / "run", *steps, {"event": "epoch", "step": 20, "epoch": 2})
    assert step_curve(run, "lr").x.tolist() == [0.5, 1]
    alone = logged(tmp_path / "alone", *steps)
    assert step_curve(alone, "lr").x.tolist() == [1, 1]


def test_skipped_steps_are_counted_up_to_the_last_event(tmp_path: Path) -> None:
    start = {"event": "start", "step": 0, "steps_per_epoch": 10}
    skipped = [{"event": "skipped", "step": step} for step in (5, 5, 20)]
    curve = skipped_curve(logged(tmp_path / "run", start, *skipped, {"event": "step", "step": 40}))
    assert curve.x.tolist() == [0, 0.5, 0.5, 2, 4]
    assert curve.y.tolist() == [0, 1, 2, 3, 3]


def test_thinning_keeps_ends_and_means() -> None:
    x = np.arange(12.0)
    few = thinned(Curve(x, np.array([1.0, 3, 5, 7, 0, 0, 0, 4, 2, 2, 2, 2])), 3)
    assert few.x.tolist() == [0, 5.5, 11]  # the bins' means are 1.5, 5.5 and 9.5
    assert few.y.tolist() == [4, 1, 2]
    y = np.random.default_rng(0).normal(size=300 * 17)
    many = thinned(Curve(np.arange(len(y), dtype=float), y), 300)
    assert len(many) == 300
    assert many.y.mean() == pytest.approx(y.mean(), abs=1e-12)
    uneven = thinned(Curve(np.arange(1001.0), np.arange(1001.0)), 300)
    assert len(uneven) == 300
    assert np.all(np.diff(uneven.x) > 0)
    assert uneven.y[1:-1] == pytest.approx(uneven.x[1:-1])


def test_short_curves_stay_as_they_are() -> None:
    curve = Curve(np.arange(5.0), np.arange(5.0))
    assert thinned(curve, 5) is curve


def test_more_curves_have_fewer_points_each() -> None:
    assert points_for(1) == 300
    assert points_for(60) * 60 <= 9000
    assert points_for(1000) == 60


@pytest.mark.parametrize("value", ["a text", None, True, [1], 10**400, 1e300, float("nan"), float("inf")], ids=repr)
def test_what_is_no_number_is_left_out(tmp_path: Path, value: object) -> None:
    events: list[dict[str, Any]] = [
        {"event": "step", "step": 1, "epoch": 1, "lr": value},
        {"event": "step", "step": 2, "epoch": 1, "lr": 0.1},
        {"event": "epoch", "step": 2, "epoch": value, "train_top1": 50.0, "val_count": 1, "val_top1_correct": 1},
        {"event": "epoch", "step": 4, "epoch": 2, "train_top1": value, "val_count": value, "ema": value},
    ]
    run = logged(tmp_path / "run", *events)
    assert step_curve(run, "lr").y.tolist() == [0.1]
    assert [len(curve) for curve in error_curves(run).all()] == [0, 0, 0]


@pytest.mark.parametrize(("count", "correct"), [(0, 0), (5, 6), (5, -1), (-5, -3), (1e-300, 1)])
def test_what_is_no_share_of_images_has_no_error(tmp_path: Path, count: float, correct: float) -> None:
    event = {"event": "epoch", "step": 4, "epoch": 2, "val_count": count, "val_top1_correct": correct}
    assert len(error_curves(logged(tmp_path / "run", event)).validation) == 0


def test_the_most_accurate_run_comes_first(tmp_path: Path) -> None:
    accuracies: dict[str, tuple[float, ...]] = {"a": (50.0, 60.0), "b": (), "c": (70.0, 30.0), "d": (60.0,)}
    runs = [RunValues(read_run(write_run(tmp_path / name, values))) for name, values in accuracies.items()]
    assert by_accuracy(runs) == [2, 0, 3, 1]
