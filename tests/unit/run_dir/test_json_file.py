"""The file of --json holds the new result or the old one, whatever its name stands for."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from resnext_train.errors import InputError
from resnext_train.run_dir.result_file import write_json

RESULT = {"top1": 76.5, "loss": float("nan")}


def test_a_pipe_stays_a_pipe(tmp_path: Path) -> None:
    """As /dev/stdout must stay what it is, also for root."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        write_json(str(pipe), "--json", RESULT, indent=1)
        assert json.loads(os.read(reader, 1000)) == {"top1": 76.5, "loss": None}
    finally:
        os.close(reader)
    assert pipe.is_fifo()
    assert list(tmp_path.iterdir()) == [pipe]


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    link = tmp_path / "link.json"
    link.symlink_to("target.json")
    for top1 in (1.0, 2.0):  # the target is missing, then there
        write_json(str(link), "--json", {"top1": top1}, indent=1)
        assert json.loads((tmp_path / "target.json").read_text()) == {"top1": top1}
    assert link.is_symlink()
    assert {p.name for p in tmp_path.iterdir()} == {"link.json", "target.json"}


def test_what_cannot_be_written_leaves_the_old_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "result.json"
    write_json(str(path), "--json", RESULT, indent=1)
    before = path.read_bytes()

    def fails(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fails)
    with pytest.raises(InputError, match=r"^--json: .*result\.json .*: No space left on device$"):
        write_json(str(path), "--json", {"top1": 1.0}, indent=1)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
