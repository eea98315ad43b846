"""Named pipes in place of files: a command that opens one would wait forever for its writer."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers.commands import Command, Refuses, evaluate, export, prepare, train


@pytest.fixture(autouse=True)
def _no_hang() -> Iterator[None]:
    signal.alarm(60)  # ends the process
    yield
    signal.alarm(0)


CASES: dict[str, tuple[Command, list[str]]] = {
    "--ckpt of eval": (evaluate, ["--ckpt", "PIPE"]),
    "--ckpt of export": (export, ["--ckpt", "PIPE", "--out", "x.pt"]),
    "--resume": (train, ["--config", "smoke", "--out", "run", "--resume", "PIPE"]),
    "--config": (train, ["--config", "PIPE", "--out", "run"]),
    "model.weights": (train, ["--config", "smoke", "--out", "run", "model.weights=PIPE"]),
    "eval.classes": (train, ["--config", "smoke", "--out", "run", "eval.classes=PIPE"]),
    "an endless eval.classes": (train, ["--config", "smoke", "--out", "run", "eval.classes=/dev/zero"]),
    "--train-tar": (prepare, ["imagenet", "--train-tar", "PIPE", "--out", "p"]),
    "--val-tar": (prepare, ["imagenet", "--val-tar", "PIPE", "--val-wnids", "NAMES", "--out", "p"]),
    "--val-wnids": (prepare, ["imagenet", "--val-tar", "NAMES", "--val-wnids", "PIPE", "--out", "p"]),
    "--devkit": (prepare, ["imagenet", "--val-tar", "NAMES", "--devkit", "PIPE", "--out", "p"]),
    "an image to pack": (prepare, ["pack", "IMAGES", "p", "--workers", "1"]),
}


@pytest.mark.parametrize(("command", "arguments"), CASES.values(), ids=CASES)
def test_a_named_pipe_is_refused(
    command: Command,
    arguments: list[str],
    image_root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    refuses: Refuses,
) -> None:
    if "--devkit" in arguments:
        pytest.importorskip("scipy")
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe.yaml")
    os.mkfifo(image_root / "train" / "cat" / "pipe.jpg")
    (tmp_path / "names").write_text("cat\ndog\n")
    paths = {"PIPE": "pipe.yaml", "NAMES": "names", "IMAGES": str(image_root / "train")}
    filled = [next((a.replace(k, path) for k, path in paths.items() if k in a), a) for a in arguments]
    told = refuses(command, *filled)
    assert "pipe" in told or "/dev/zero" in told
    assert not (tmp_path / "run").exists()


def test_check_lists_a_named_pipe(image_root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    os.mkfifo(image_root / "val" / "dog" / "pipe.jpg")
    assert prepare(["check", str(image_root), "--workers", "1"]) == 1
    assert "bad: dog/pipe.jpg" in capsys.readouterr().out


def test_files_of_a_pack_that_are_pipes(image_root: Path, tmp_path: Path, refuses: Refuses) -> None:
    pack = tmp_path / "pack"
    assert prepare(["pack", str(image_root), str(pack), "--tier", "raw", "--workers", "1"]) == 0
    shard = pack / "train" / "shard-00000.bin"
    shard.unlink()
    os.mkfifo(shard)
    assert "pipe" in refuses(train, "--config", "smoke", "data.source=folder", f"data.root={pack}", "--dry-run")
