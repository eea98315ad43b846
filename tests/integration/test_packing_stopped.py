"""Packing that is stopped, or runs out of disk, goes on where it stopped."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from helpers.disks import small_disk
from helpers.images import save_images
from helpers.packs import JPEGTRAN, content, packed
from helpers.runs import module
from resnext_train.data.pack.pack_format import is_pack, shard_name
from resnext_train.errors import InputError
from resnext_train.prepare.image_splits import FolderSplit
from resnext_train.prepare.pack_records import Tier

pytestmark = pytest.mark.slow

IMAGES = 264
"""Five shards."""


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_images(tmp_path_factory.mktemp("images"), IMAGES)


@pytest.fixture
def slow_jpegtran(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A jpegtran that takes its time, so that a command can be stopped in the middle."""
    program = tmp_path / "bin" / "jpegtran"
    program.parent.mkdir()
    then = f'exec {JPEGTRAN} "$@"' if JPEGTRAN else "exit 1"
    program.write_text(f"#!/bin/sh\nsleep 0.01\n{then}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    return program


def start(images: Path, out: Path, *options: str) -> subprocess.Popen[str]:
    command = module("prepare", "pack", str(images), str(out), *options)
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)


def wait_for_shards(count: int, out: Path, process: subprocess.Popen[str]) -> None:
    for _ in range(6000):
        if len(list(out.glob("shard-*.npz"))) >= count:
            return
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    raise AssertionError(f"{count} shards were not finished in a minute")


def finished(out: Path) -> dict[str, int]:
    """The finished shards, and when they were written."""
    return {p.name: p.stat().st_mtime_ns for p in out.glob("shard-*.bin") if p.with_suffix(".npz").exists()}


def alive_in_session(session: int) -> list[int]:
    """The processes of a session that are not zombies."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                state, _, _, its_session = (entry / "stat").read_text().rpartition(")")[2].split()[:4]
            except OSError:
                continue
            if int(its_session) == session and state != "Z":
                found.append(int(entry.name))
    return found


def wait_until_none_is_alive(session: int) -> None:
    for _ in range(500):
        if not alive_in_session(session):
            return
        time.sleep(0.01)
    raise AssertionError("workers outlived the command")


def test_a_stopped_command_goes_on_where_it_stopped(images: Path, tmp_path: Path, slow_jpegtran: Path) -> None:
    out = tmp_path / "pack"
    process = start(images, out, "--workers", "2")
    wait_for_shards(1, out, process)
    assert len(alive_in_session(process.pid)) >= 3
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does it for Ctrl-C
    stdout, stderr = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "Traceback" not in stderr
    assert "resnext prepare pack: interrupted" in stderr
    assert "the same command packs the rest" in stdout
    wait_until_none_is_alive(process.pid)
    assert not list(out.glob(".*"))
    assert not is_pack(out)
    kept = finished(out)

    process = start(images, out, "--workers", "2")
    wait_for_shards(len(kept) + 1, out, process)
    process.kill()
    process.communicate()
    assert not is_pack(out)
    wait_until_none_is_alive(process.pid)
    assert kept.items() <= finished(out).items()
    kept = finished(out)
    assert 2 <= len(kept) < 5

    tier = Tier("exact", None, None, JPEGTRAN or str(slow_jpegtran))
    outcome = packed(FolderSplit(images), out, tier)
    assert outcome.packed_now < IMAGES
    assert {name: (out / name).stat().st_mtime_ns for name in kept} == kept
    assert sorted(p.name for p in out.iterdir()) == ["index.bin", *map(shard_name, range(5))]
    packed(FolderSplit(images), tmp_path / "at once", tier)
    assert content(out) == content(tmp_path / "at once")


@pytest.mark.root
def test_a_full_disk_is_said_and_gone_on_from(images: Path, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "900k") as disk:
        out, filler = disk / "pack", disk / "filler"
        filler.write_bytes(bytes(450_000))  # the pack takes some 600 KB
        tier = Tier("raw", 24, None, None)
        with pytest.raises(InputError, match="disk is full"):
            packed(FolderSplit(images), out, tier)
        assert not is_pack(out)
        assert not list(out.glob(".*")), "what was half-written takes no room"
        kept = len(list(out.glob("shard-*.npz")))
        assert 0 < kept < 5
        filler.unlink()
        outcome = packed(FolderSplit(images), out, tier)
        assert outcome.packed_now == IMAGES - 64 * kept
        packed(FolderSplit(images), tmp_path / "at once", tier)
        assert content(out) == content(tmp_path / "at once")
