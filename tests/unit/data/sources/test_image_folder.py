from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import pytest

from helpers.images import save_image
from resnext_train.data.sources.image_folder import ImageFolder
from resnext_train.errors import InputError


def age(root: Path) -> None:
    """Make all folders look as if they had not changed for an hour."""
    for folder in [root, *(p for p in root.rglob("*") if p.is_dir())]:
        os.utime(folder, (time.time() - 3600, time.time() - 3600))


def names(folder: ImageFolder) -> list[str]:
    return [os.path.relpath(folder.name(i), folder.root) for i in range(len(folder))]


def cached(tmp_path: Path) -> list[Path]:
    return list((tmp_path / "cache").rglob("meta.json"))


def test_images_in_order_of_class_and_path(image_root: Path) -> None:
    save_image(image_root / "val" / "dog" / "nested" / "x.png")
    (image_root / "val" / "dog" / "notes.txt").write_text("")
    (image_root / "val" / ".hidden").mkdir()
    folder = ImageFolder(image_root / "val")
    assert folder.classes == ("cat", "dog", "emu")
    expected = [
        "cat/0.JPEG",
        "cat/1.JPEG",
        "cat/2.JPEG",
        "dog/0.JPEG",
        "dog/1.JPEG",
        "dog/2.JPEG",
        "dog/nested/x.png",
    ]
    assert names(folder) == [*expected, "emu/0.JPEG", "emu/1.JPEG", "emu/2.JPEG"]
    assert folder.labels.tolist() == [0, 0, 0, 1, 1, 1, 1, 2, 2, 2]
    assert folder.image(1).width == 43


def test_the_list_is_cached_memory_mapped_and_outside_the_data(image_root: Path, tmp_path: Path) -> None:
    root = image_root / "train"
    age(root)
    before = sorted(root.rglob("*"))
    first = ImageFolder(root)
    assert len(cached(tmp_path)) == 1
    assert sorted(root.rglob("*")) == before
    second = ImageFolder(root)
    assert names(second) == names(first)
    assert isinstance(second._paths, np.memmap)
    assert isinstance(second.labels, np.memmap)
    assert not isinstance(first._paths, np.memmap)


@pytest.mark.parametrize("change", ["add", "remove", "rename class", "add class", "add nested"])
def test_a_changed_tree_is_scanned_again(image_root: Path, tmp_path: Path, change: str) -> None:
    root = image_root / "train"
    age(root)
    ImageFolder(root)
    assert cached(tmp_path)
    if change == "add":
        save_image(root / "cat" / "new.JPEG")
    elif change == "remove":
        (root / "cat" / "3.JPEG").unlink()
    elif change == "rename class":
        (root / "cat").rename(root / "zebra")
    elif change == "add class":
        save_image(root / "ant" / "0.JPEG")
    else:
        save_image(root / "cat" / "deep" / "er" / "0.JPEG")
    expected = sorted(
        (p.relative_to(root).as_posix() for p in root.rglob("*.JPEG")), key=lambda n: (n.split("/")[0], n)
    )
    assert names(ImageFolder(root)) == expected


def test_a_tree_that_has_just_changed_is_not_cached(image_root: Path, tmp_path: Path) -> None:
    """A second change within the same tick of the file system's clock would go unseen."""
    save_image(image_root / "train" / "cat" / "fresh.JPEG")
    ImageFolder(image_root / "train")
    assert not cached(tmp_path)


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY"])
@pytest.mark.parametrize("damage", ["meta.json", "paths.npy", "ends.npy"])
def test_a_damaged_cache_is_made_anew(image_root: Path, tmp_path: Path, damage: str, content: bytes) -> None:
    root = image_root / "train"
    age(root)
    expected = names(ImageFolder(root))
    (cached(tmp_path)[0].parent / damage).write_bytes(content)
    assert names(ImageFolder(root)) == expected
    assert isinstance(ImageFolder(root)._paths, np.memmap)


def test_a_cache_that_cannot_be_written_is_said_and_done_without(
    image_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    age(image_root)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.warns(UserWarning, match=rf" {image_root / 'val'} .*Not a directory"):
        assert len(ImageFolder(image_root / "val")) == 9


@pytest.mark.parametrize(("make", "told"), [("nothing", "not found"), ("empty", "class folders")])
def test_folders_that_hold_no_data(tmp_path: Path, make: str, told: str) -> None:
    root = tmp_path / "data"
    if make == "empty":
        root.mkdir()
    with pytest.raises(InputError, match=rf"{root} .*{told}"):
        ImageFolder(root)
