from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Event as Flag
from typing import Any, get_args

import numpy as np
import pytest

from helpers.commands import train
from resnext_train.config.log_section import TrackerName
from resnext_train.errors import MissingLibraryError
from resnext_train.run_dir.jsonl_sink import JsonlSink
from resnext_train.run_dir.run_logger import RunLogger
from resnext_train.run_dir.sink import Event, LogEnd, Sink
from resnext_train.run_dir.trackers import tracker_guard, tracker_list
from resnext_train.run_dir.trackers.tracker_guard import BackgroundTracker, TrackerGuard


class Faulty(Sink):
    """Raises in one of its methods, and notes what it was called for."""

    def __init__(self, faulty: str, calls: list[str]) -> None:
        self.faulty, self.calls = faulty, calls
        self._note("open")

    def _note(self, method: str) -> None:
        self.calls.append(method)
        if method == self.faulty:
            raise RuntimeError(f"no {method}\ntoday")

    def write(self, event: Event) -> None:
        self._note("write")

    def picture(self, name: str, pixels: Any, step: int) -> None:
        self._note("picture")

    def close(self) -> None:
        self._note("close")


@pytest.mark.parametrize("guard", [TrackerGuard, BackgroundTracker])
@pytest.mark.parametrize("method", ["open", "write", "picture", "close"])
def test_a_failure_is_told_and_logged_once_and_ends_the_tracker(
    guard: type[TrackerGuard], method: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    calls: list[str] = []
    log = RunLogger()
    log.open([JsonlSink(tmp_path / "log.jsonl", LogEnd(0)), guard("faulty", True, lambda: Faulty(method, calls))])
    for step in (1, 2):
        log.write("step", step=step)
        log.picture("p", np.zeros((1, 1, 3), np.uint8), step)
    log.close()
    events = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [event["step"] for event in events if event["event"] == "step"] == [1, 2]
    (failed,) = [event for event in events if event["event"] == "tracker_failed"]
    assert failed["tracker"] == "faulty"
    assert f"RuntimeError: no {method} today" in failed["text"]
    assert capsys.readouterr().err.count("faulty has failed") == 1
    assert calls.count("open") == 1
    assert calls.count(method) == 1


class Stuck(Sink):
    """Waits in its first event until it is let go."""

    def __init__(self) -> None:
        self.go, self.begun, self.steps = Flag(), Flag(), list[int]()

    def write(self, event: Event) -> None:
        self.begun.set()
        self.go.wait(30)
        self.go.set()
        self.steps.append(event["step"])


@pytest.fixture
def stuck(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stuck]:
    monkeypatch.setattr(tracker_guard, "CLOSE_SECONDS", 0.3)
    monkeypatch.setattr(tracker_guard, "QUEUED_CALLS", 5)
    sink = Stuck()
    yield sink
    sink.go.set()


@pytest.mark.parametrize("ends", [True, False], ids=["goes on", "never returns"])
def test_a_call_that_hangs_holds_up_nothing(stuck: Stuck, ends: bool) -> None:
    abandoned: list[bool] = []
    tracker = BackgroundTracker("stuck", False, lambda: stuck, lambda: abandoned.append(True))
    began = time.monotonic()
    tracker.write({"event": "step", "step": 0})
    assert stuck.begun.wait(30)
    for step in range(1, 20):
        tracker.write({"event": "step", "step": step})
    assert len(tracker.take_faults()) == 1, "that it does not keep up"
    if ends:
        stuck.go.set()
    tracker.close()
    assert time.monotonic() - began < 20
    faults = tracker.take_faults()
    assert any("lacks 14 events" in fault for fault in faults)
    assert bool(abandoned) is not ends
    if ends:
        assert stuck.steps == [0, 1, 2, 3, 4, 5]


def test_what_a_recipe_may_name_can_be_opened() -> None:
    assert set(get_args(TrackerName)) == tracker_list.TRACKERS.keys()


@pytest.mark.parametrize(("name", "library"), [("wandb", "wandb"), ("mlflow", "mlflow"), ("mlflow", "alembic")])
def test_a_library_that_is_missing_is_told_with_its_extra(
    name: str, library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(MissingLibraryError, match=rf"{library}.*pip install 'resnext-train\[{name}\]'"):
        tracker_list.check_installed(["csv", name])
    tracker_list.check_installed(["csv", "tensorboard"])


def test_a_folder_of_a_librarys_name_is_no_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "wandb").mkdir()
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    with pytest.raises(MissingLibraryError):
        tracker_list.check_installed(["wandb"])


def test_training_does_not_begin_without_a_trackers_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    assert train(["--config", "smoke", "log.to=wandb", "--out", str(tmp_path / "run")]) == 2
    assert capsys.readouterr().err.count("pip install 'resnext-train[wandb]'") == 1
    assert not (tmp_path / "run").exists()
