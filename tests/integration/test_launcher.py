"""`--procs N` in real processes: signals, slow saves and deaths, the exit code, and that nothing is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from helpers.runs import SMALL, events, state_of

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="needs /proc, to find the ranks"),
]

LONG = ["train.epochs=400", "log.every=1", "eval.every_epochs=400", "checkpoint.every_epochs=400"]
"""A long run that saves nothing of its own accord: what is saved in a test, the test has asked for."""

SLOW_SAVE = """
import os, pathlib, time

fsync, mark = os.fsync, pathlib.Path(os.environ["SLOW_SAVE"])


def slow_fsync(file):
    name = os.readlink(f"/proc/self/fd/{file}")
    if ".last.pt" in name and mark.exists():
        mark.with_suffix(".begun").touch()
        time.sleep(33)
    fsync(file)


os.fsync = slow_fsync
"""
"""A sitecustomize.py: once the file SLOW_SAVE exists, a checkpoint takes 33.5 s to reach the disk; torch waits 30."""


class Job:
    """`resnext train --procs 2` in the background."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.out, self._slow = folder / "run", folder / "slow"
        (folder / "site").mkdir(parents=True)
        (folder / "site" / "sitecustomize.py").write_text(SLOW_SAVE)
        path = os.pathsep.join(filter(None, (str(folder / "site"), os.environ.get("PYTHONPATH"))))
        command = [sys.executable, "-m", "resnext_train", "train", "--procs", "2", "--config", "smoke"]
        self._process = subprocess.Popen(
            [*command, "--out", str(self.out), *SMALL, *LONG, *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "PYTHONPATH": path, "SLOW_SAVE": str(self._slow)},
            start_new_session=True,
        )
        self.pid, self.ranks = self._process.pid, list[int]()

    def wait_for_ranks(self) -> None:
        """Wait until both ranks are started, and note them."""
        self._wait(lambda: len(self._children()) == 2)
        self.ranks = self._children()

    def _children(self) -> list[int]:
        tasks = Path(f"/proc/{self.pid}/task").iterdir()
        return [int(pid) for task in tasks for pid in (task / "children").read_text().split()]

    def wait_for_step(self) -> None:
        """Wait for the first step."""
        self.wait_for_ranks()
        self._wait(lambda: (self.out / "log.jsonl").exists() and events(self.out, "step"))

    def slow_saves(self) -> None:
        """From now on a save takes 33 s."""
        self._slow.touch()

    def wait_for_slow_save(self) -> None:
        self._wait(self._slow.with_suffix(".begun").exists)

    def seconds_from_slow_save_to_end(self) -> float:
        """From the first slow save to the last word in state.json."""
        begun = self._slow.with_suffix(".begun")
        return (self.out / "state.json").stat().st_mtime - begun.stat().st_mtime

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()

    def _wait(self, what: Callable[[], object]) -> None:
        deadline = time.monotonic() + 120
        while not what():
            assert time.monotonic() < deadline
            assert self._process.poll() is None, self._process.communicate()[0]
            time.sleep(0.02)

    def end(self) -> tuple[int, str]:
        """Exit code and output, once all processes are gone."""
        output, _ = self._process.communicate(timeout=120)
        deadline = time.monotonic() + 60
        while left := [pid for pid in self.ranks if Path(f"/proc/{pid}").exists()]:
            assert time.monotonic() < deadline, f"orphans: {left}"
            time.sleep(0.02)
        return self._process.returncode, output


@pytest.fixture(scope="module", autouse=True)
def slow_saves(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Job, Job]]:
    """Two runs in a save of 33 s. All tests of this module start them; the last one sees how they end.

    The first has got a signal, and its ranks wait for the save. The signal goes to the process group, as a terminal
    sends it: the ranks are not in the group, the launcher alone passes it on. The second rank of the other is killed
    meanwhile.
    """
    folder = tmp_path_factory.mktemp("slow")
    stopped, broken = Job(folder / "stopped"), Job(folder / "broken", "checkpoint.every_steps=5")
    for job in (stopped, broken):
        job.wait_for_step()
        job.slow_saves()
    os.killpg(stopped.pid, signal.SIGINT)
    broken.wait_for_slow_save()
    os.kill(broken.ranks[1], signal.SIGKILL)
    yield stopped, broken
    for job in (stopped, broken):
        job.kill()


def assert_saved(job: Job, output: str, by: str) -> None:
    """The run is saved at one step in its state, log and checkpoint, and nobody has shown a traceback."""
    state = state_of(job.out)
    assert (state["status"], state["signal"]) == ("preempted", by)
    assert [e["step"] for e in events(job.out, "preempted")] == [state["step"]]
    saved = torch.load(job.out / "checkpoints" / "last.pt", weights_only=True)
    assert saved["progress"]["step"] == state["step"] == len(events(job.out, "step"))
    assert "Traceback" not in output


def test_an_interrupt_before_the_ranks_can_take_it_is_one_line_and_130(tmp_path: Path) -> None:
    job = Job(tmp_path)
    job.wait_for_ranks()
    os.killpg(job.pid, signal.SIGINT)
    code, output = job.end()
    assert (code, output.count("\n")) == (130, 1), output
    assert not job.out.exists()


def test_a_second_interrupt_ends_all_at_once_without_a_save(tmp_path: Path) -> None:
    job = Job(tmp_path)
    job.wait_for_step()
    job.slow_saves()
    os.killpg(job.pid, signal.SIGINT)
    os.killpg(job.pid, signal.SIGINT)  # as of one Ctrl-C that came two ways
    job.wait_for_slow_save()
    time.sleep(1.0)
    began = time.monotonic()
    os.killpg(job.pid, signal.SIGINT)
    code, output = job.end()
    assert time.monotonic() - began < 20
    assert code == 130, output
    assert "Traceback" not in output
    assert not list((job.out / "checkpoints").glob("*.pt"))


def test_a_launcher_that_is_killed_leaves_no_orphans(tmp_path: Path) -> None:
    job = Job(tmp_path)
    job.wait_for_step()
    os.kill(job.pid, signal.SIGKILL)
    code, output = job.end()
    assert code == -signal.SIGKILL
    assert_saved(job, output, "SIGTERM")


def test_a_bad_image_that_one_rank_meets_is_one_sentence_and_code_2(image_root: Path, tmp_path: Path) -> None:
    """The other rank loses it, and knows why. Modules in the current folder are not the package's."""
    if sys.version_info >= (3, 11):  # Python 3.10 has no option for it
        (tmp_path / "yaml.py").write_text("raise SystemExit('imported from the current folder')")
    bad = image_root / "train" / "dog" / "5.JPEG"
    bad.write_bytes(b"no image")
    synthetic = ("data.train_images", "data.val_images", "data.size", "data.classes", "train.batch", "train.micro")
    options = [o for o in SMALL if not o.startswith(synthetic)]
    options += ["data.source=folder", f"data.root={image_root}", "train.batch_size=8", "train.micro_batch=4"]
    resnext = [str(Path(sys.executable).with_name("resnext")), "train", "--procs", "2", "--config", "smoke"]
    done = subprocess.run([*resnext, *options], capture_output=True, text=True, check=False, timeout=120, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert str(bad) in done.stderr
    assert state_of(tmp_path / "runs" / "smoke")["status"] == "failed"


def test_a_signal_to_the_launcher_waits_for_a_save_of_33_seconds(slow_saves: tuple[Job, Job]) -> None:
    stopped, broken = slow_saves
    code, output = stopped.end()
    assert code == 75, output
    assert_saved(stopped, output, "SIGINT")
    code, output = broken.end()
    assert code == 1, output
    assert "process 1 of 2" in output
    assert state_of(broken.out)["status"] == "failed"
    assert (broken.out / "checkpoints" / "last.pt").exists()
    assert min(job.seconds_from_slow_save_to_end() for job in slow_saves) > 33
