"""resnext verify, with real kills."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from helpers.commands import verify
from helpers.forked import ForkedProcess
from helpers.runs import SMALL
from resnext_train.verify import rank_processes

pytestmark = pytest.mark.slow


def test_a_user_can_prove_that_a_recipe_resumes_exactly(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On 2 processes with much that has a memory: RMSProp, clipping, a plateau, padding, dropout, skipped images."""
    forked = SimpleNamespace(Popen=ForkedProcess, STDOUT=subprocess.STDOUT)
    monkeypatch.setattr(rank_processes, "subprocess", forked)  # three runs of two ranks import nothing
    options = ["model.arch=torchvision/squeezenet1_1", "model.width=1", "augment.crop=pad", "optimizer.name=rmsprop"]
    options += ["optimizer.lr=0.001", "optimizer.clip_norm=0.5", "schedule.name=plateau", "schedule.patience=0"]
    trial = ["--steps", "5", "--kills", "1", "--procs", "2"]
    monkeypatch.setenv("WORLD_SIZE", "8")  # of a job that this runs in
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert verify(["--config", "smoke.yaml", *trial, *SMALL, *options]) == 0
    told = capfd.readouterr().out
    assert re.search(r"kill 1 of 1: .*step \d", told)
    assert re.search(r"equal: all \d+ tensors, values and logged events of 5 steps on 2 processes", told)


STAND_IN = """#!/bin/sh
test "$1 $2 $3" = "-m resnext_train train" || exit 3
test -z "$WORLD_SIZE$TORCHELASTIC_RUN_ID" || exit 4
while test "$1" != --out; do shift; done
mkdir -p "$2"
echo '{"event": "step", "step": 3}' > "$2/log.jsonl"
"""
"""Stands for python: a run of one process that ends at once, and is part of no job."""


def test_a_proof_without_its_kills_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The run ends before it can be killed: here as if it were faster than it can be watched."""
    monkeypatch.setattr(
        "resnext_train.verify.rank_processes.RankProcesses.watch", lambda self, target: (self.wait(), (None, 0))[1]
    )
    for name in ("WORLD_SIZE", "TORCHELASTIC_RUN_ID"):
        monkeypatch.setenv(name, "8")  # of a job that this runs in
    (tmp_path / "python").write_text(STAND_IN)
    (tmp_path / "python").chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    assert verify(["--config", "smoke.yaml", "--steps", "3", "--kills", "1", *SMALL]) == 1
    assert "before it could be killed more than 0 times, which proves too little" in capsys.readouterr().err
