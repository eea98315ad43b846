from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from resnext_train.run_dir.jsonl_sink import JsonlSink
from resnext_train.run_dir.sink import LogEnd


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_continued_log_holds_each_step_once(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    first = JsonlSink(path, LogEnd(0))
    first.write({"event": "start", "step": 0})
    for step in (2, 4, 6):
        first.write({"event": "step", "step": step, "loss": 1.0})
    first.close()
    with path.open("a") as file:
        file.write('{"event": "step", "st')  # killed while writing
    again = JsonlSink(path, LogEnd(4))
    again.write({"event": "step", "step": 6, "loss": 2.0})
    again.close()
    assert [(e["step"], e.get("loss")) for e in lines(path)] == [(0, None), (2, 1.0), (4, 1.0), (6, 2.0)]


def test_a_run_from_the_start_empties_the_log(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text('{"event": "step", "step": 2}\n')
    JsonlSink(path, LogEnd(0)).close()
    assert lines(path) == []


def test_json_has_no_nan(tmp_path: Path) -> None:
    log = JsonlSink(tmp_path / "log.jsonl", LogEnd(0))
    log.write({"event": "step", "step": 1, "loss": float("nan"), "lr": float("inf")})
    log.close()
    assert lines(tmp_path / "log.jsonl") == [{"event": "step", "step": 1, "loss": None, "lr": None}]


def test_the_line_of_an_epoch_that_is_open_is_cut(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    kinds = ["step", "unreadable", "epoch", "checkpoint"]
    whole = [{"event": kind, "step": step} for step in (1, 2, 3) for kind in kinds]
    for is_open, last in ((False, kinds), (True, ["step", "checkpoint"])):
        path.write_text("".join(json.dumps(event) + "\n" for event in whole))
        JsonlSink(path, LogEnd(2, is_open)).close()
        assert [e["event"] for e in lines(path)] == [*kinds, *last]


@pytest.mark.parametrize(
    "damage",
    [
        *(
            b"7",
            b"[1, 2]",
            b"null",
            b'"text"',
            b"{}",
            b'{"event": "step", "step": "x"}',
            b'{"event": "step", "step": -1}',
        ),
        *(b'{"event": "step", "step": 1.5}', b'{"event": "step", "step": true}', b'{"event": [], "step": 1}'),
        *(b'{"event": "step", "step": ' + b"9" * 5000 + b"}", b"[" * 100_000, b"\xff\xfe\0\0", b"\0" * 512, b"", b"\r"),
    ],
    ids=lambda damage: repr(damage[:20]),
)
def test_what_is_readable_of_a_damaged_log_is_kept(
    damage: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "log.jsonl"
    good = [json.dumps({"event": "step", "step": step}).encode() for step in (1, 2, 3)]
    content = b"\n".join([good[0], damage, *good[1:], b""])
    for aside in ("log.damaged.jsonl", "log.damaged-2.jsonl"):
        path.write_bytes(content)
        JsonlSink(path, LogEnd(2)).close()
        assert path.read_bytes() == b"\n".join([*good[:2], b""])
        assert (tmp_path / aside).read_bytes() == content
        assert str(tmp_path / aside) in capsys.readouterr().err
    assert len(list(tmp_path.iterdir())) == 3


def test_a_log_that_is_no_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "log.jsonl")
    with pytest.raises(OSError, match="pipe"):
        JsonlSink(tmp_path / "log.jsonl", LogEnd(0))
