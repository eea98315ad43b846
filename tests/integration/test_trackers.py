"""Trackers of real runs: what they hold after a kill, a stop and a continuation, and what becomes of their failures."""

from __future__ import annotations

import csv
import json
import os
import signal
import socket
import time
from functools import partial
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from helpers.commands import train
from helpers.interrupted import signal_in_step
from helpers.ranks import exit_codes, run_command, start_command
from helpers.runs import RUN, check_curves, equal_runs, events, run_module
from helpers.shared import made_once
from helpers.wandb_files import history, records
from resnext_train.config import load_stored_recipe
from resnext_train.run_dir.sink import Event, Sink
from resnext_train.run_dir.trackers import tracker_guard, tracker_list
from resnext_train.run_dir.trackers.tracked_run import TrackedRun

pytestmark = pytest.mark.slow
OPTIONS = [*RUN, "log.every=1", "train.epochs=3", "schedule.name=step"]
STEPS = list(range(1, 10))


OURS = ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "WANDB_PROJECT", "WANDB_API_KEY")


def offline_until(step: int, number: signal.Signals, after: float = 0.0) -> None:
    """On a rank, which has the environment of a server of processes: write offline, until a signal ends the run."""
    for name in OURS:
        os.environ.pop(name, None)
    os.environ["WANDB_MODE"] = "offline"
    signal_in_step(step, number, 0, after)


@pytest.fixture(scope="session")
def tracked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with all trackers: killed in step 6, stopped in step 8, continued by two ranks with loader processes."""
    return made_once(tmp_path_factory, "all runs", make_tracked) / "tracked"


def make_tracked(folder: Path) -> None:
    folder.mkdir()
    out = folder / "tracked"
    arguments = [*OPTIONS, "log.to=[tensorboard,csv,wandb,mlflow]", "--out", str(out)]
    with pytest.MonkeyPatch.context() as patch:
        for name in OURS:
            patch.delenv(name, raising=False)
        patch.setenv("WANDB_MODE", "offline")
        client(out)  # its tables may take longer than the first part of the run
        killed = start_command(train, 1, *arguments, prepare=partial(offline_until, 6, signal.SIGKILL, 3.0))
        assert exit_codes(killed) == [-signal.SIGKILL]
        stopped = start_command(train, 1, *arguments, prepare=partial(offline_until, 8, signal.SIGTERM))
        assert exit_codes(stopped) == [75]
        assert client(out).get_run(ids(out)["mlflow"]).info.status == "KILLED"
        output = run_module("train", *arguments, "data.workers=1", "--procs", "2")
    assert "wandb" not in output.lower().replace("log.to", "")


def ids(run: Path) -> dict[str, str]:
    found: dict[str, str] = json.loads((run / "trackers.json").read_text())
    return found


def client(run: Path) -> MlflowClient:
    return MlflowClient(f"sqlite:///{run.parent / 'mlflow.db'}")


def logged(run: Path, key: str) -> dict[int, float]:
    return {event["step"]: event[key] for event in events(run, "step")}


def test_trackers_change_no_bit(tracked: Path, tmp_path: Path) -> None:
    run_command(train, 1, *OPTIONS, "--out", str(tmp_path / "plain"))
    assert equal_runs(tracked, tmp_path / "plain")
    assert not events(tracked, "tracker_failed")


def test_wandb_has_the_parts_of_a_run_under_one_id(tracked: Path) -> None:
    files = sorted(tracked.glob("wandb/offline-run-*/*.wandb"))
    assert len(files) == 3, "one for each part of the run, and none of the second rank"
    assert {file.name for file in files} == {f"run-{ids(tracked)['wandb']}.wandb"}
    rows = [row for file in files for row in history(file)]
    losses = {row["step"]: row["train/loss"] for row in rows if "train/loss" in row}
    assert losses == pytest.approx(logged(tracked, "loss"))
    last = history(files[-1])
    assert [row["step"] for row in last if "val/accuracy" in row] == [9]
    assert {row["step"] for row in last if "train/gradient_norms.bins" in row} == {9}
    picture = files[0].parent / "files" / next(row for row in rows if "train/images.path" in row)["train/images.path"]
    assert picture.read_bytes().startswith(b"\x89PNG")
    ends = [record.exit.exit_code for record in records(files[2]) if record.WhichOneof("record_type") == "exit"]
    assert ends == [0]
    started = next(r.run for r in records(files[2]) if r.WhichOneof("record_type") == "run")
    config = {item.key: json.loads(item.value_json) for item in started.config.update}
    assert (started.project, started.display_name) == ("resnext-train", "tracked")
    assert config["train"]["batch_size"] == 16
    axes = [r.metric for r in records(files[2]) if r.WhichOneof("record_type") == "metric"]
    assert ("*", "step") in {(metric.glob_name, metric.step_metric) for metric in axes}


def test_mlflow_has_one_run_with_each_step(tracked: Path) -> None:
    store, recipe = client(tracked), load_stored_recipe(tracked / "recipe.yaml").to_dict()
    runs = store.search_runs([e.experiment_id for e in store.search_experiments() if e.name == "resnext-train"])
    assert [run.info.run_id for run in runs] == [ids(tracked)["mlflow"]]
    assert (runs[0].info.status, runs[0].info.run_name) == ("FINISHED", "tracked")
    points = sorted(store.get_metric_history(ids(tracked)["mlflow"], "train/loss"), key=lambda point: point.timestamp)
    assert {point.step: point.value for point in points} == pytest.approx(logged(tracked, "loss")), "the later ones"
    accuracy = store.get_metric_history(ids(tracked)["mlflow"], "val/accuracy")
    assert [point.step for point in accuracy] == [3, 6, 9]
    params = runs[0].data.params
    assert params["train.batch_size"] == "16"
    assert params.keys() == {f"{section}.{key}" for section, values in recipe.items() for key in values}
    assert runs[0].data.tags["recipe.data.workers"] == "1", "which the last part of the run has changed"
    assert "log.every=1" in json.loads(runs[0].data.tags["command"])
    images = [file.path for file in store.list_artifacts(ids(tracked)["mlflow"], "images")]
    assert any("first_layer" in name for name in images)


def test_the_table_has_each_step_and_epoch_once(tracked: Path) -> None:
    with (tracked / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows if row["event"] == "step"] == STEPS
    assert [int(row["step"]) for row in rows if row["event"] == "epoch"] == [3, 6, 9]
    for key, name in (("loss", "loss"), ("top1", "accuracy"), ("lr", "lr")):
        values = {int(row["step"]): float(row[f"train/{name}"]) for row in rows if row["event"] == "step"}
        assert values == logged(tracked, key)
    shown = [float(row["val/accuracy"]) for row in rows if row["val/accuracy"]]
    assert shown == pytest.approx([100 * e["val_top1_correct"] / 37 for e in events(tracked, "epoch")])


def test_tensorboard_shows_the_run_by_its_name_and_each_thing_once(tracked: Path) -> None:
    assert len(list(tracked.glob("events.out.*"))) == 3, "not in a folder of their own, and none of the second rank"
    check_curves(tracked)
    board = EventAccumulator(str(tracked), size_guidance={"images": 0, "histograms": 0})
    board.Reload()
    shown = {tag: [image.step for image in board.Images(tag)] for tag in board.Tags()["images"]}
    assert shown == {"train/images": [1], "network/first_layer": [3, 6, 9]}
    norms = board.Histograms("train/gradient_norms")
    assert [histogram.step for histogram in norms] == STEPS
    assert all(histogram.histogram_value.min > 0 for histogram in norms)
    text = b"".join(value.tensor_proto.string_val[0] for value in board.Tensors("recipe"))
    assert b"arch: resnext14_2x4d" in text
    assert board.SummaryMetadata("recipe").plugin_data.plugin_name == "text"
    start, end = (
        HParamsPluginData.FromString(board.SummaryMetadata(f"_hparams_/session_{part}_info").plugin_data.content)
        for part in ("start", "end")
    )
    values = start.session_start_info.hparams
    assert values["model.arch"].string_value == "resnext14_2x4d"
    assert values["train.batch_size"].number_value == 16
    assert end.session_end_info.end_time_secs >= start.session_start_info.start_time_secs > 0


class Raising(Sink):
    """A tracker whose calls raise from the third step on."""

    def __init__(self, run: TrackedRun) -> None:
        pass

    def write(self, event: Event) -> None:
        if event["event"] == "step" and event["step"] == 3:
            raise ZeroDivisionError("of the library's")


def harm_trackers(uri: str) -> None:
    os.environ["MLFLOW_TRACKING_URI"] = uri
    patch = pytest.MonkeyPatch()
    patch.setitem(tracker_list.TRACKERS, "csv", tracker_list.Tracker(Raising))
    patch.setattr(tracker_guard, "OPEN_SECONDS", 0.5)
    patch.setattr(tracker_guard, "CLOSE_SECONDS", 1.0)


def test_trackers_that_hang_or_raise_stop_no_run(tracked: Path, tmp_path: Path) -> None:
    """An MLflow server that takes connections and never answers, and a tracker with a fault."""
    with socket.create_server(("127.0.0.1", 0), backlog=50) as silent:
        prepare = partial(harm_trackers, f"http://127.0.0.1:{silent.getsockname()[1]}")
        arguments = [*OPTIONS, "log.to=[csv,mlflow,tensorboard]", "--out", str(tmp_path / "run")]
        began = time.monotonic()
        ranks = start_command(train, 1, *arguments, prepare=prepare, output=tmp_path / "output")
        assert exit_codes(ranks) == [0]
        assert time.monotonic() - began < 100, "an answer is waited for for minutes"
    failed = {event["tracker"]: event for event in events(tmp_path / "run", "tracker_failed")}
    assert failed.keys() == {"csv", "mlflow"}
    assert failed["csv"]["step"] == 3
    assert "ZeroDivisionError: of the library's" in failed["csv"]["text"]
    assert failed["mlflow"]["step"] == 9
    output = (tmp_path / "output").read_text()
    assert output.count("csv has failed") == output.count("mlflow did not take") == 1
    assert "Traceback" not in output
    assert equal_runs(tracked, tmp_path / "run")
    check_curves(tmp_path / "run")


def without_account(folder: Path) -> None:
    for name in ("WANDB_MODE", "WANDB_API_KEY"):
        os.environ.pop(name, None)
    os.environ |= dict.fromkeys(("HOME", "NETRC", "WANDB_CONFIG_DIR"), str(folder))


def test_without_an_account_wandb_is_written_offline(tmp_path: Path) -> None:
    out, output = tmp_path / "run", tmp_path / "output"
    command = [*OPTIONS, "train.max_steps=2", "log.to=wandb", "--out", str(out)]
    ranks = start_command(train, 1, *command, prepare=partial(without_account, tmp_path / "none"), output=output)
    assert exit_codes(ranks) == [0]
    assert output.read_text().count("no one is logged in to W&B") == 1
    (file,) = out.glob("wandb/offline-run-*/*.wandb")
    assert [row["step"] for row in history(file) if "train/loss" in row] == [1, 2]
