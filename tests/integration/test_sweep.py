"""A sweep in real processes, killed twice: what is done stays, and what was cut off continues."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from helpers.runs import SMALL, environment, events, module, state_of, wait_for_step

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")]

OVERRIDES = [*SMALL, "train.epochs=3", "log.every=1", "checkpoint.every_steps=1"]


def start(folder: Path) -> subprocess.Popen[str]:
    arguments = ["sweep", "--config", "smoke", *OVERRIDES, "--seeds", "0:2", "--out", str(folder)]
    return subprocess.Popen(module(*arguments), env=environment(), stdout=subprocess.PIPE, text=True)


def child_of(pid: int) -> int:
    """The training process of a sweep."""
    (child,) = map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
    return child


def result_of(run: Path) -> dict[str, Any]:
    result: dict[str, Any] = json.loads((run / "evaluation" / "result.json").read_text())
    return result


def test_a_sweep_that_is_killed_twice_comes_to_its_end(tmp_path: Path) -> None:
    first, second = tmp_path / "smoke-seed0", tmp_path / "smoke-seed1"
    sweep = start(tmp_path)
    wait_for_step(first, 3, lambda: sweep.poll() is not None)
    os.kill(child_of(sweep.pid), signal.SIGKILL)
    wait_for_step(second, 3, lambda: sweep.poll() is not None)  # it goes on with the next
    sweep.kill()
    output, _ = sweep.communicate(timeout=120)  # until the run, which writes there as well, has noticed
    assert "SIGKILL" in output
    assert state_of(second)["status"] == "preempted"
    assert not (first / "evaluation").exists()

    sweep = start(tmp_path)
    output, _ = sweep.communicate(timeout=120)
    assert (sweep.returncode, state_of(first)["status"], state_of(second)["status"]) == (0, "done", "done")
    assert (tmp_path / "report.html").is_file()
    assert re.search(r"^smoke +2  0, 1 ", output, re.MULTILINE)  # the group of both seeds
    for run in (first, second):
        assert len(events(run, "start")) == 2
        last = json.loads((run / "summary.json").read_text())["last"]
        assert [result_of(run)[key] for key in ("count", "top1_correct")] == [37, last["top1_correct"]]
