from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from resnext_train.atomic_file import link_atomically
from resnext_train.errors import InputError
from resnext_train.run_dir.run_paths import RunDir


def with_checkpoints(path: Path, *names: str) -> RunDir:
    (path / "checkpoints").mkdir(parents=True)
    for name in names:
        (path / "checkpoints" / name).write_bytes(name.encode())
    return RunDir(path)


def names(folder: RunDir) -> set[str]:
    return {path.name for path in folder.checkpoints.iterdir()}


def test_epochs_are_numbers_not_text(tmp_path: Path) -> None:
    folder = with_checkpoints(tmp_path / "run", "epoch_9998.pt", "epoch_9999.pt", "epoch_10000.pt", "epoch_of_mine.pt")
    folder.remove_old_epochs(keep=2)
    assert names(folder) == {"epoch_9999.pt", "epoch_10000.pt", "epoch_of_mine.pt"}
    folder.remove_old_epochs(keep=0)
    assert len(names(folder)) == 3, "0: none are kept, and so none are written"


def test_what_is_discarded_is_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four checkpoints may be on the disk at once. Two of these are there, and two are given up."""
    folder = with_checkpoints(tmp_path / "run", "last.pt", "best.pt", "discarded.pt", "discarded_epoch_0002.pt")
    for free, fits in ((200, True), (199, False)):
        monkeypatch.setattr(shutil, "disk_usage", lambda _, free=free: SimpleNamespace(free=free))
        if fits:
            folder.check_room(100, keep=0)
        else:
            with pytest.raises(InputError):
                folder.check_room(100, keep=0)


def test_two_names_of_one_file_leave_nothing_else(tmp_path: Path) -> None:
    """After a recovery last.pt and previous.pt are one file, and a rename of one onto the other does nothing."""
    folder = with_checkpoints(tmp_path / "run", "last.pt")
    for _ in range(2):
        link_atomically(folder.last, folder.previous)
        assert names(folder) == {"last.pt", "previous.pt"}


def test_what_a_killed_run_left_half_written_is_removed(tmp_path: Path) -> None:
    folder = with_checkpoints(tmp_path / "run", ".last.pt.new", ".best.pt.new", "last.pt")
    folder.create("model: {}\n")
    assert names(folder) == {"last.pt"}


@pytest.mark.parametrize(
    "put", [os.mkfifo, lambda path: path.symlink_to(path.with_name("other"))], ids=["pipe", "link"]
)
def test_what_bears_the_name_of_a_temporary_file_is_replaced(put: Callable[[Path], None], tmp_path: Path) -> None:
    (tmp_path / "other").write_text("kept")
    put(tmp_path / ".state.json.new")
    RunDir(tmp_path).write_state("running", 3)
    assert json.loads((tmp_path / "state.json").read_text()) == {"status": "running", "step": 3}
    assert (tmp_path / "other").read_text() == "kept"
    assert not (tmp_path / "state.json").is_symlink()


def test_a_lock_is_no_link_to_another_file(tmp_path: Path) -> None:
    other, lock = tmp_path / "other", tmp_path / "run" / ".lock"
    other.write_text("kept")
    lock.parent.mkdir()
    makers: list[Callable[[], None]] = [
        lambda: lock.symlink_to(other),
        lambda: lock.hardlink_to(other),
        lambda: os.mkfifo(lock),
    ]
    for make in makers:
        make()
        with pytest.raises(InputError, match="cannot be written"):
            RunDir(lock.parent).lock()
        lock.unlink()
    assert other.read_text() == "kept"


def test_a_folder_where_a_checkpoint_belongs_is_named(tmp_path: Path) -> None:
    (tmp_path / "checkpoints" / "best.pt").mkdir(parents=True)
    with pytest.raises(InputError, match=r"/best\.pt is a folder"):
        RunDir(tmp_path).create("model: {}\n")
