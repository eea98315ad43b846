"""The limits of jpegtran: the size that a header states, memory and time; in packing and in checking."""

from __future__ import annotations

import io
import re
import resource
import struct
import time
from pathlib import Path

import pytest
from PIL import Image

from helpers.commands import prepare
from helpers.packs import EXACT, JPEGTRAN, needs_jpegtran
from resnext_train.data.decode.jpeg_header import BadImageError
from resnext_train.data.pack.pack_format import UNREADABLE, VERBATIM
from resnext_train.prepare import jpegtran
from resnext_train.prepare.pack_records import Tier, check_stream, make_record

needs_prlimit = pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="needs Linux's prlimit")


def jpeg(width: int = 48, height: int = 40) -> bytes:
    file = io.BytesIO()
    Image.linear_gradient("L").resize((width, height)).convert("RGB").save(file, "JPEG", subsampling="4:4:4")
    return file.getvalue()


def huge(width: int, height: int) -> bytes:
    """A JPEG of 48 × 40 pixels whose header states another size."""
    data = bytearray(jpeg())
    struct.pack_into(">HH", data, data.index(b"\xff\xc0") + 5, height, width)
    return bytes(data)


def program(folder: Path, script: str) -> str:
    path = folder / "jpegtran"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


def exact(path: str) -> Tier:
    return Tier("exact", None, None, path)


def test_an_image_that_is_too_large_does_not_reach_jpegtran(tmp_path: Path) -> None:
    """From the size in the header it would take 12.5 GB."""
    path = program(tmp_path, f"cat; touch {tmp_path}/called")
    for width, height in ((65_500, 65_500), (10_001, 10_000), (16, 65_500)):
        record = make_record(huge(width, height), "a.JPEG", exact(path), verify=False)
        assert (record.kind, record.height, record.width) == (UNREADABLE, 0, 0)
        assert f"{width:,} × {height:,} " in record.odd
        with pytest.raises(BadImageError, match=f"{width:,} × {height:,} "):
            check_stream(huge(width, height), path)
    assert not (tmp_path / "called").exists()
    check_stream(jpeg(), path)
    assert (tmp_path / "called").exists()


def test_a_header_of_another_size_in_both_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, data in {"a": jpeg(), "b": huge(65_500, 65_500)}.items():
        (tmp_path / "images" / "c").mkdir(parents=True, exist_ok=True)
        (tmp_path / "images" / "c" / f"{name}.JPEG").write_bytes(data)
    assert prepare(["check", str(tmp_path / "images"), "--workers", "1"]) == 1
    assert re.search(r"bad: c/b\.JPEG: .*65,500 × 65,500 .*100,000,000", capsys.readouterr().out)
    prepare(["pack", str(tmp_path / "images"), str(tmp_path / "pack"), "--tier", "exact", "--workers", "1"])
    assert re.search(r"c/b\.JPEG: .*65,500 × 65,500 .*100,000,000", capsys.readouterr().out)


def test_a_run_that_takes_too_long_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jpegtran, "TIME_LIMIT", 0.3)
    path, began = program(tmp_path, "exec sleep 60"), time.monotonic()
    record = make_record(jpeg(), "a.JPEG", exact(path), verify=True)
    assert (record.data, record.kind) == (jpeg(), VERBATIM)
    assert re.search("jpegtran took over", record.odd)
    with pytest.raises(BadImageError, match="jpegtran took over"):
        check_stream(jpeg(), path)
    assert time.monotonic() - began < 30


@needs_prlimit
def test_memory_is_limited_before_the_input_is_written(tmp_path: Path) -> None:
    path = program(tmp_path, "cat > /dev/null; ulimit -v >&2; exit 1")
    record = make_record(jpeg(), "a.JPEG", exact(path), verify=True)
    assert record.odd == f"jpegtran: {jpegtran.MEMORY_LIMIT // 1024}"
    before = resource.getrlimit(resource.RLIMIT_AS)
    assert before[0] != jpegtran.MEMORY_LIMIT, "it is the program's limit, not this process's"


@needs_jpegtran
@needs_prlimit
def test_a_run_that_takes_too_much_memory_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    """3,000 × 3,000 coefficients of three components take 54 MB."""
    data = jpeg(3000, 3000)
    assert make_record(data, "a.JPEG", EXACT, verify=False).odd == ""
    check_stream(data, JPEGTRAN)
    monkeypatch.setattr(jpegtran, "MEMORY_LIMIT", 50_000_000)
    record = make_record(data, "a.JPEG", EXACT, verify=False)
    assert record.kind == VERBATIM
    assert re.search(r"jpegtran: .*memory", record.odd)
    with pytest.raises(BadImageError, match=r"jpegtran: .*memory"):
        check_stream(data, JPEGTRAN)


def test_no_limit_of_memory_where_the_system_has_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(resource, "prlimit", raising=False)
    path = program(tmp_path, "cat > /dev/null; ulimit -v >&2; exit 1")
    assert make_record(jpeg(), "a.JPEG", exact(path), verify=True).odd != f"jpegtran: {jpegtran.MEMORY_LIMIT // 1024}"
