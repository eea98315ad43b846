"""Commands as processes of their own: their exit codes and streams."""

from __future__ import annotations

import os
import re
import select
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.images import save_image
from helpers.runs import RUN, environment, events, module, run_module, start_module

pytestmark = pytest.mark.slow


def test_the_module_lists_its_commands() -> None:
    done = start_module()
    assert done.returncode == 2
    assert all(command in done.stderr for command in ("train", "eval", "info", "export"))
    assert start_module("--help").returncode == 0


def test_bench_as_a_module(image_root: Path) -> None:
    few = ["--images", "10", "--rounds", "1", "--tiers", "folder", "--data", str(image_root)]
    small = ["augment.size=32", "train.batch_size=8", "train.micro_batch=4", "data.workers=0"]
    out = run_module("bench", "data", "--config", "resnet18.yaml", *few, *small)
    assert re.search(r"^folder +[\d.,]+ ", out, re.MULTILINE)


def test_more_processes_than_micro_batches(tmp_path: Path) -> None:
    done = start_module("train", *RUN, "train.micro_batch=16", torchrun=2, cwd=tmp_path)
    assert done.returncode == 1  # torchrun's own
    sentence = "resnext train: error: 2 processes but only 1 micro-batches in a step"
    assert [line.partition(sentence)[0] for line in done.stderr.splitlines() if sentence in line] == [
        "",
        "  traceback : ",  # in torchrun's table of failures
    ]
    assert "start at most 1" in done.stderr


def test_a_reader_that_leaves_early_is_no_error() -> None:
    code = (
        "from resnext_train.cli.run_command import run_command\n"
        "def chatter():\n"
        "    for i in range(10**6): print('line', i)\n"
        "raise SystemExit(run_command('resnext info', chatter, only_prints=True))"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline().startswith(b"line 0")
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == 141


def test_unbuffered_output_comes_at_once() -> None:
    code = "from resnext_train.cli import console_streams as c; c.open_console(); print(1); input(); print(2)"
    arguments = [sys.executable, "-u", "-c", code]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert select.select([process.stdout], [], [], 20)[0], "nothing yet"
        assert process.communicate("go\n")[0] == "1\n2\n"


def test_a_current_folder_that_is_gone_is_said(tmp_path: Path) -> None:
    command = shlex.join(module("prepare", "pack", "x", "y"))
    line = f"mkdir gone && cd gone && rmdir ../gone && exec {command}"
    done = subprocess.run(["bash", "-c", line], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert re.fullmatch("resnext prepare pack: error: .* is gone; .*\n", done.stderr), done.stderr


def in_shell(arguments: list[str], streams: str, cwd: Path) -> subprocess.Popen[str]:
    """Start a command with redirections or a pipe, such as `>&-`; the exit code is its own."""
    line = f"{shlex.join(module(*arguments))} {streams}; exit ${{PIPESTATUS[0]}}"
    return subprocess.Popen(["bash", "-c", line], cwd=cwd, env=environment(), stderr=subprocess.PIPE, text=True)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_no_console_ends_a_run(tmp_path: Path) -> None:
    consoles = {
        "full": "--procs 2 >/dev/full 2>/dev/full",
        "closed": ">&- 2>&- <&-",
        "gone": "| true",
    }
    runs = {n: in_shell(["train", *RUN, "--out", n], streams, tmp_path) for n, streams in consoles.items()}
    for name, run in runs.items():
        error = run.communicate(timeout=120)[1]
        assert run.returncode == 0, (name, error)
        assert "Traceback" not in error
        assert "Exception" not in error
        assert [e["step"] for e in events(tmp_path / name, "step")] == [2, 4, 6]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize(
    ("arguments", "unbuffered"),
    [(["info"], ""), (["--help"], ""), (["--help"], "1"), (["train", *RUN, "--dry-run"], "")],
    ids=["info", "help", "help, unbuffered", "train"],
)
def test_output_that_cannot_be_written_is_one_sentence(
    arguments: list[str], unbuffered: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONUNBUFFERED", unbuffered)
    command = in_shell(arguments, ">/dev/full", tmp_path)
    error = command.communicate(timeout=60)[1]
    assert command.returncode == 1
    assert re.fullmatch(r"resnext.*: error: .*No space left on device\n", error), error


def test_a_terminal_is_shown_names_that_are_no_text_as_text(tmp_path: Path) -> None:
    names = ["a\nb", "b\r\x1b[2J\x07", os.fsdecode(b"c\xff\xfe"), "d\u202egnp", "e\x85\u2028f", "é 日本 ñ"]
    for name in names:
        save_image(tmp_path / "val\x1b[31m\n" / name / f"{name}.JPEG")
        (tmp_path / "val\x1b[31m\n" / name / f"bad{name}.JPEG").write_bytes(b"no image")
    done = start_module("prepare", "check", str(tmp_path / "val\x1b[31m\n"), "--workers", "1")
    assert done.returncode == 1
    lines = done.stdout.rstrip("\n").split("\n")
    assert all(line.isprintable() for line in lines)
    assert len(lines) == len(names) + 1
    assert "Traceback" not in done.stderr
