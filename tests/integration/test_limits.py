"""Limits of the system, as a shell sets them: one sentence, before anything is started."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

import pytest

from helpers.commands import train
from helpers.ranks import exit_codes, start_command
from helpers.runs import RUN, environment

LIMITS = {
    "files": ("ulimit -n 30", "ulimit -n"),
    "1 GB of addresses": ("ulimit -v 1000000", "ulimit -v"),
    "3 GB of addresses": ("ulimit -v 3000000", "ulimit -v"),
}


@pytest.mark.parametrize(("limit", "told"), LIMITS.values(), ids=LIMITS)
def test_a_limit_is_named(limit: str, told: str, tmp_path: Path) -> None:
    run = shlex.join([sys.executable, "-m", "resnext_train", "train", *RUN, "data.workers=1", "--out", "run"])
    done = subprocess.run(
        ["bash", "-c", f"{limit}; {run}"],
        cwd=tmp_path,
        env=environment() | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert told in done.stderr
    assert not (tmp_path / "run" / "state.json").exists()


def keep_temporary_files_in(folder: Path) -> None:
    tempfile.tempdir = str(folder)


def test_a_long_path_of_temporary_files_is_named(tmp_path: Path) -> None:
    long, output = tmp_path / ("x" * 100), tmp_path / "output"
    long.mkdir()
    arguments = [*RUN, "data.workers=1", "--out", str(tmp_path / "run")]
    run = start_command(train, 1, *arguments, prepare=partial(keep_temporary_files_in, long), output=output)
    assert exit_codes(run) == [2], output.read_text()
    assert output.read_text().count("\n") == 1
    assert "TMPDIR" in output.read_text()
    assert not (tmp_path / "run" / "state.json").exists()
