"""Files and folders are whole under their name, or not there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from resnext_train.atomic_file import new_path


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def make_folder(path: Path) -> None:
    (path / "inner").mkdir(parents=True)


def make_file(path: Path) -> None:
    path.write_text("half")


def fail(path: Path, make: Callable[[Path], object]) -> None:
    """Be stopped in the middle of writing `path`."""
    with new_path(path) as temporary:
        make(temporary)
        raise KeyboardInterrupt


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "place").mkdir()
    return tmp_path / "place"


def test_a_folder_and_a_file_get_their_names_at_the_end(place: Path) -> None:
    with new_path(place / "folder") as temporary:
        (temporary / "inner").mkdir(parents=True)
        (temporary / "inner" / "file").write_text("content")
        assert not (place / "folder").exists()
    with new_path(place / "file.pt2") as temporary:
        assert (temporary.suffix, temporary.parent) == (".pt2", place)
        temporary.write_text("content")
        assert not (place / "file.pt2").exists()
    assert names(place) == ["file.pt2", "folder"]
    assert (place / "folder" / "inner" / "file").read_text() == (place / "file.pt2").read_text() == "content"


@pytest.mark.parametrize("make", [make_folder, make_file])
def test_nothing_is_left_of_a_failure(place: Path, make: Callable[[Path], object]) -> None:
    with pytest.raises(KeyboardInterrupt):
        fail(place / "new", make)
    assert names(place) == []


@pytest.mark.parametrize("make", [make_folder, make_file])
def test_what_a_killed_process_left_is_removed(place: Path, make: Callable[[Path], object]) -> None:
    with new_path(place / "new") as temporary:
        make_file(temporary)
    (place / "new").unlink()
    make(temporary)
    with new_path(place / "new") as temporary:
        temporary.write_text("whole")
    assert names(place) == ["new"]


def test_a_folder_that_came_in_between_stays(place: Path) -> None:
    def make(temporary: Path) -> None:
        make_folder(temporary)
        make_folder(place / "new")

    with pytest.raises(OSError, match="new"), new_path(place / "new") as temporary:
        make(temporary)
    assert names(place) == ["new"]
