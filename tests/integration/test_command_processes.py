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

from helpers.commands import Command, info, prepare, train
from helpers.images import save_image
from helpers.ranks import exit_codes, start_command
from helpers.runs import RUN, environment, equal_runs, events, module, run_module, start_module

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


def print_to_a_full_disk() -> None:
    os.dup2(os.open("/dev/full", os.O_WRONLY), 1)


def print_to_nobody() -> None:
    reader, writer = os.pipe()
    os.dup2(writer, 1)
    os.close(writer)
    os.close(reader)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_no_console_ends_a_run(whole: Path, tmp_path: Path) -> None:
    consoles = {"full": "--procs 2 >/dev/full 2>/dev/full", "closed": ">&- 2>&- <&-"}
    runs = {n: in_shell(["train", *RUN, "--out", n], streams, tmp_path) for n, streams in consoles.items()}
    out = ["--out", str(tmp_path / "gone")]
    gone = start_command(train, 1, *RUN, *out, prepare=print_to_nobody, output=tmp_path / "stderr")
    errors = {n: run.communicate(timeout=120)[1] for n, run in runs.items()}
    assert exit_codes(gone) == [0]
    assert {n: run.returncode for n, run in runs.items()} == {"full": 0, "closed": 0}, errors
    for name, error in {**errors, "gone": (tmp_path / "stderr").read_text()}.items():
        assert "Traceback" not in error
        assert "Exception" not in error
        assert equal_runs(tmp_path / name, whole)
        assert [e["step"] for e in events(tmp_path / name, "step")] == [2, 4, 6]


CANNOT_BE_WRITTEN = r"resnext.*: error: .*No space left on device\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_help_that_cannot_be_written_is_one_sentence(
    unbuffered: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does the interpreter complain in its last moment."""
    monkeypatch.setenv("PYTHONUNBUFFERED", unbuffered)
    command = in_shell(["--help"], ">/dev/full", tmp_path)
    error = command.communicate(timeout=60)[1]
    assert command.returncode == 1
    assert re.fullmatch(CANNOT_BE_WRITTEN, error), error


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize(("command", "arguments"), [(info, []), (train, [*RUN, "--dry-run"])])
def test_results_that_cannot_be_written_are_one_sentence(
    command: Command, arguments: list[str], tmp_path: Path
) -> None:
    output = tmp_path / "stderr"
    assert exit_codes(start_command(command, 1, *arguments, prepare=print_to_a_full_disk, output=output)) == [1]
    assert re.fullmatch(CANNOT_BE_WRITTEN, output.read_text()), output.read_text()


def test_a_terminal_is_shown_names_that_are_no_text_as_text(tmp_path: Path) -> None:
    names = ["a\nb", "b\r\x1b[2J\x07", os.fsdecode(b"c\xff\xfe"), "d\u202egnp", "e\x85\u2028f", "é 日本 ñ"]
    for name in names:
        save_image(tmp_path / "val\x1b[31m\n" / name / f"{name}.JPEG")
        (tmp_path / "val\x1b[31m\n" / name / f"bad{name}.JPEG").write_bytes(b"no image")
    output = tmp_path / "output"
    folder = str(tmp_path / "val\x1b[31m\n")
    assert exit_codes(start_command(prepare, 1, "check", folder, "--workers", "1", output=output)) == [1]
    lines = output.read_text().rstrip("\n").split("\n")
    assert all(line.isprintable() for line in lines)
    assert len(lines) == len(names) + 1
