"""Limits of the system, as a shell sets them: one sentence, before anything is started."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.runs import RUN, environment

LIMITS = {
    "files": ("ulimit -n 30", "ulimit -n"),
    "1 GB of addresses": ("ulimit -v 1000000", "ulimit -v"),
    "3 GB of addresses": ("ulimit -v 3000000", "ulimit -v"),
    "a long path of temporary files": ('mkdir -p "$LONG"; export TMPDIR=$LONG', "TMPDIR"),
}


@pytest.mark.parametrize(("limit", "told"), LIMITS.values(), ids=LIMITS)
def test_a_limit_is_named(limit: str, told: str, tmp_path: Path) -> None:
    run = shlex.join([sys.executable, "-m", "resnext_train", "train", *RUN, "data.workers=1", "--out", "run"])
    long = str(tmp_path / ("x" * 100))
    done = subprocess.run(
        ["bash", "-c", f"{limit}; {run}"],
        cwd=tmp_path,
        env=environment() | {"LONG": long, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert told in done.stderr
    assert not (tmp_path / "run" / "state.json").exists()
