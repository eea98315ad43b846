"""Packs that are there already or begun, and workers that fail."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from helpers.images import save_images
from helpers.packs import RAW, content, packed
from resnext_train.data.pack.pack_format import shard_name
from resnext_train.errors import InputError
from resnext_train.prepare import pack_split, worker_pool
from resnext_train.prepare.image_splits import FolderSplit
from resnext_train.prepare.pack_records import Tier

IMAGES = 264
"""Five shards."""


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_images(tmp_path_factory.mktemp("images"), IMAGES)


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
    with pytest.raises(InputError, match=rf"^{out} .*unfinished"):
        packed(FolderSplit(images), out, Tier("raw", 25, None, None))
    changed = tmp_path / "changed"
    shutil.copytree(images, changed)
    assert FolderSplit(changed).fingerprint == FolderSplit(images).fingerprint  # a copy with its dates is the same
    (changed / "c0" / "000.JPEG").touch()
    with pytest.raises(InputError, match=rf"^{out} .*unfinished"):
        packed(FolderSplit(changed), out, RAW)
    os.truncate(out / shard_name(1), 100)  # a shard that was spoiled in between is made again
    outcome = packed(FolderSplit(images), out, RAW)
    assert (outcome.images, outcome.packed_now) == (IMAGES, IMAGES - 64)
    packed(FolderSplit(images), tmp_path / "at once", RAW)
    assert content(out) == content(tmp_path / "at once")
    assert pack_split.pack_split(FolderSplit(images), out, RAW, 1, 1, lambda _: None) is None
    with pytest.raises(InputError, match=rf"^{out} holds a pack"):
        packed(FolderSplit(images), out, Tier("raw", 25, None, None))


def test_a_folder_with_other_things_is_left_alone(images: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "photo.jpg").write_bytes(b"mine")
    with pytest.raises(InputError, match=r"/mine .*\(photo\.jpg\)"):
        packed(FolderSplit(images), tmp_path / "mine", RAW)
    assert [p.read_bytes() for p in (tmp_path / "mine").iterdir()] == [b"mine"]


def test_two_commands_do_not_write_to_one_folder(images: Path, tmp_path: Path) -> None:
    (tmp_path / "pack").mkdir()
    with pack_split._lock_folder(tmp_path / "pack"), pytest.raises(InputError, match=r"another .*/pack;"):
        packed(FolderSplit(images), tmp_path / "pack", RAW)


def _fails(task: int, advance: worker_pool.Advance) -> int:
    if task == 3:
        raise ZeroDivisionError
    if task == 4:
        os.kill(os.getpid(), signal.SIGKILL)
    if task == 5:
        raise InputError("this is wrong")
    return task


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "error", "says"),
    [
        (3, RuntimeError, "ZeroDivisionError"),
        (4, InputError, "--workers"),
        (5, InputError, "^this is wrong$"),
    ],
)
def test_workers_that_fail(task: int, error: type[Exception], says: str) -> None:
    assert sorted(worker_pool.run(_fails, iter([0, 1, 2]), 2, lambda _: None)) == [0, 1, 2]
    with pytest.raises(error, match=says):
        list(worker_pool.run(_fails, iter([0, task, 1, 2]), 2, lambda _: None))


def _die(code: int) -> None:
    os._exit(code)  # which make coverage replaces by a function that has no name to be sent by


class _DiesAsItArrives:
    def __reduce__(self) -> tuple[Callable[..., object], tuple[int]]:
        return _die, (1,)

    def __call__(self, task: bytes, advance: worker_pool.Advance) -> int:
        raise AssertionError


@pytest.mark.slow
@pytest.mark.parametrize("size", [1, 1_000_000], ids=["before it answers", "while it is sent a task"])
def test_workers_that_die_before_their_first_task(size: int) -> None:
    with pytest.raises(InputError, match="--workers"):
        list(worker_pool.run(_DiesAsItArrives(), iter([bytes(size)]), 2, lambda _: None))
