"""Packing that is interrupted, and disks that are full."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import save_image
from packs import JPEGTRAN, RAW, content, packed

from resnext_train.data.pack.pack_format import is_pack, shard_name
from resnext_train.errors import InputError
from resnext_train.prepare import pack_split, worker_pool
from resnext_train.prepare.image_splits import FolderSplit
from resnext_train.prepare.pack_records import Tier

IMAGES = 264
"""Five shards."""


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("images")
    for i in range(IMAGES):
        save_image(root / f"c{i % 4}" / f"{i:03d}.JPEG", (40, 32), i)
    return root


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
    command = [sys.executable, "-m", "resnext_train", "prepare", "pack", str(images), str(out), *options]
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
    assert "resnext-prepare: interrupted" in stderr
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


def test_other_images_or_options_do_not_go_on(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "pack"
    whole = pack_split._make_shard

    def stops(job: pack_split._Job, task: pack_split._Task, advance: worker_pool.Advance) -> int:
        if task.number == 2:
            raise KeyboardInterrupt
        return whole(job, task, advance)

    monkeypatch.setattr(pack_split, "_make_shard", stops)
    with pytest.raises(KeyboardInterrupt):
        packed(FolderSplit(images), out, RAW)
    monkeypatch.undo()
    assert (out / "plan.json").is_file()
    with pytest.raises(InputError, match="an unfinished pack of other images or options"):
        packed(FolderSplit(images), out, Tier("raw", 25, None, None))
    changed = tmp_path / "changed"
    shutil.copytree(images, changed)
    assert FolderSplit(changed).fingerprint == FolderSplit(images).fingerprint  # a copy with its dates is the same
    (changed / "c0" / "000.JPEG").touch()
    with pytest.raises(InputError, match="an unfinished pack of other images or options"):
        packed(FolderSplit(changed), out, RAW)
    os.truncate(out / shard_name(1), 100)  # a shard that was spoiled in between is made again
    outcome = packed(FolderSplit(images), out, RAW)
    assert (outcome.images, outcome.packed_now) == (IMAGES, IMAGES - 64)
    packed(FolderSplit(images), tmp_path / "at once", RAW)
    assert content(out) == content(tmp_path / "at once")
    assert pack_split.pack_split(FolderSplit(images), out, RAW, 1, 1, lambda _: None) is None
    with pytest.raises(InputError, match="holds a pack of other images or with other options"):
        packed(FolderSplit(images), out, Tier("raw", 25, None, None))


def test_a_folder_with_other_things_is_left_alone(images: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "photo.jpg").write_bytes(b"mine")
    with pytest.raises(InputError, match=r"is not empty \(photo.jpg\)"):
        packed(FolderSplit(images), tmp_path / "mine", RAW)
    assert [p.read_bytes() for p in (tmp_path / "mine").iterdir()] == [b"mine"]


def test_two_commands_do_not_write_to_one_folder(images: Path, tmp_path: Path) -> None:
    (tmp_path / "pack").mkdir()
    with pack_split._lock_folder(tmp_path / "pack"), pytest.raises(InputError, match="another command is packing into"):
        packed(FolderSplit(images), tmp_path / "pack", RAW)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 900 KB."""
    mount = tmp_path / "disk"
    mount.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=900k", "tmpfs", str(mount)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount a small disk")
    yield mount
    subprocess.run(["umount", "--lazy", str(mount)], check=True)


def test_a_full_disk_is_said_and_gone_on_from(images: Path, tmp_path: Path, small_disk: Path) -> None:
    out, filler = small_disk / "pack", small_disk / "filler"
    filler.write_bytes(bytes(450_000))  # the pack takes some 600 KB
    tier = Tier("raw", 24, None, None)
    with pytest.raises(InputError, match="the disk is full; make room and give the same command again"):
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


def _fails(task: int, advance: worker_pool.Advance) -> int:
    if task == 3:
        raise ZeroDivisionError
    if task == 4:
        os.kill(os.getpid(), signal.SIGKILL)
    if task == 5:
        raise InputError("this is wrong")
    return task


@pytest.mark.parametrize(
    ("task", "error", "says"),
    [
        (3, RuntimeError, "ZeroDivisionError"),
        (4, InputError, "a worker was killed, perhaps because memory ran out"),
        (5, InputError, "^this is wrong$"),
    ],
)
def test_workers_that_fail(task: int, error: type[Exception], says: str) -> None:
    assert sorted(worker_pool.run(_fails, iter([0, 1, 2]), 2, lambda _: None)) == [0, 1, 2]
    with pytest.raises(error, match=says):
        list(worker_pool.run(_fails, iter([0, task, 1, 2]), 2, lambda _: None))


class _DiesAsItArrives:
    def __reduce__(self) -> tuple[Callable[..., object], tuple[int]]:
        return os._exit, (1,)

    def __call__(self, task: bytes, advance: worker_pool.Advance) -> int:
        raise AssertionError


@pytest.mark.parametrize("size", [1, 1_000_000], ids=["before it answers", "while it is sent a task"])
def test_workers_that_die_before_their_first_task(size: int) -> None:
    with pytest.raises(InputError, match="a worker was killed"):
        list(worker_pool.run(_DiesAsItArrives(), iter([bytes(size)]), 2, lambda _: None))
