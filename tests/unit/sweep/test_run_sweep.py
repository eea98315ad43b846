"""What a sweep does as its runs end, with stand-ins for them that obey the same contract and need no torch."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from resnext_train.errors import FaultError, Preempted
from resnext_train.run_dir.run_paths import RunDir
from resnext_train.sweep import run_sweep as module
from resnext_train.sweep.run_sweep import SweepResult, evaluation, is_evaluated, run_sweep
from resnext_train.sweep.sweep_plan import PlannedRun

STAND_IN = """
import json, pathlib, signal, sys, time
command, out = sys.argv[1], pathlib.Path(sys.argv[sys.argv.index("--out") + 1])
calls = out.parent / "calls" if command == "train" else out.parent.parent / "calls"
with calls.open("a") as file:
    file.write(f"{command} {out.name}\\n")
if command == "eval":
    out.mkdir()
    (out / "result.json").write_text("{}")
    sys.exit(0)
out.mkdir(exist_ok=True)
def stop(number, frame):
    if "killed" in sys.argv:
        signal.signal(number, signal.SIG_DFL)
        signal.raise_signal(number)
    if "unsaved" in sys.argv:
        sys.exit(1)
    (out / "state.json").write_text(json.dumps({"status": "preempted", "step": 1}))
    sys.exit(130 if number == signal.SIGINT else 75)
if "wait" in sys.argv:
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT):
        signal.signal(number, stop)
    (out / "ready").touch()
    time.sleep(60)
for word in sys.argv:
    if word.startswith("exit="):
        sys.exit(int(word[5:]))
    if word == "die":
        signal.raise_signal(signal.SIGKILL)
(out / "checkpoints").mkdir()
(out / "checkpoints" / "last.pt").touch()
(out / "state.json").write_text(json.dumps({"status": "done", "step": 2}))
"""


@pytest.fixture(autouse=True)
def stand_ins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "own_command", lambda arguments: [sys.executable, "-c", STAND_IN, *arguments])


def runs(folder: Path, *overrides: str) -> list[PlannedRun]:
    return [PlannedRun("x", (word,), RunDir(folder / f"run{n}"), 1) for n, word in enumerate(overrides)]


def calls(folder: Path) -> list[str]:
    return (folder / "calls").read_text().splitlines()


def test_each_run_is_trained_and_evaluated_once(tmp_path: Path) -> None:
    both = runs(tmp_path, "a", "b")
    assert run_sweep(both, lambda _: None) == SweepResult(0, [])
    assert calls(tmp_path) == ["train run0", "eval evaluation", "train run1", "eval evaluation"]
    assert run_sweep(both, lambda _: None) == SweepResult(2, [])
    assert len(calls(tmp_path)) == 4
    os.utime(both[0].folder.last, (2e9, 2e9))  # trained on since
    assert not is_evaluated(both[0].folder)


@pytest.mark.parametrize(("word", "told"), [("exit=1", "exit code 1"), ("exit=2", "exit code 2"), ("die", "SIGKILL")])
def test_a_run_that_fails_does_not_keep_the_next_from_running(tmp_path: Path, word: str, told: str) -> None:
    result = run_sweep(runs(tmp_path, word, "b"), lambda _: None)
    assert [told in failure for failure in result.failed] == [True]
    assert calls(tmp_path) == ["train run0", "train run1", "eval evaluation"]


def send_once_ready(run: Path, number: signal.Signals) -> None:
    """Send a signal to this process, in a thread, as soon as the stand-in waits for it."""

    def send() -> None:
        while not (run / "ready").exists():
            threading.Event().wait(0.01)
        os.kill(os.getpid(), number)

    threading.Thread(target=send, daemon=True).start()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def test_a_signal_is_passed_on_and_ends_the_sweep(tmp_path: Path, number: signal.Signals) -> None:
    before = signal.getsignal(number)
    send_once_ready(tmp_path / "run0", number)
    with pytest.raises(KeyboardInterrupt if number == signal.SIGINT else Preempted):
        run_sweep(runs(tmp_path, "wait", "b"), lambda _: None)
    assert json.loads((tmp_path / "run0" / "state.json").read_text())["status"] == "preempted"
    assert calls(tmp_path) == ["train run0"]
    assert signal.getsignal(number) is before


@pytest.mark.parametrize(
    ("word", "number", "raised"),
    [
        ("killed", signal.SIGINT, KeyboardInterrupt),  # as by a second Ctrl-C
        ("killed", signal.SIGTERM, Preempted),  # before it could handle it
        ("unsaved", signal.SIGTERM, FaultError),
    ],
)
def test_a_run_that_could_not_save_is_not_called_saved(
    tmp_path: Path, word: str, number: signal.Signals, raised: type[BaseException]
) -> None:
    send_once_ready(tmp_path / "run0", number)
    (run,) = [replace(run, overrides=("wait", word)) for run in runs(tmp_path, "")]
    with pytest.raises(raised):
        run_sweep([run], lambda _: None)


def test_images_that_have_moved_are_found_by_the_evaluation(tmp_path: Path) -> None:
    (run,) = runs(tmp_path, "data.root=/there")
    assert evaluation(replace(run, overrides=("train.epochs=2", "data.root=/there")))[-1] == "data.root=/there"


def test_a_run_whose_checkpoints_were_removed_keeps_its_evaluation(tmp_path: Path) -> None:
    both = runs(tmp_path, "a")
    run_sweep(both, lambda _: None)
    both[0].folder.last.unlink()
    assert run_sweep(both, lambda _: None) == SweepResult(1, [])
    assert len(calls(tmp_path)) == 2


@pytest.mark.parametrize(("code", "raised"), [(75, Preempted), (130, KeyboardInterrupt)])
def test_a_run_that_was_stopped_by_itself_stops_the_sweep(
    tmp_path: Path, code: int, raised: type[BaseException]
) -> None:
    with pytest.raises(raised):
        run_sweep(runs(tmp_path, f"exit={code}", "b"), lambda _: None)
    assert calls(tmp_path) == ["train run0"]
