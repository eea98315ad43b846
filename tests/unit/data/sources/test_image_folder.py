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
    for folder in (first, second):
        assert isinstance(folder._paths, np.memmap)
        assert isinstance(folder.labels, np.memmap)


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


@pytest.mark.parametrize("from_cache", [False, True])
def test_a_link_back_into_the_tree_adds_no_images(image_root: Path, from_cache: bool) -> None:
    """24 images would be over 500, most of them of two classes."""
    root = image_root / "train"
    expected = names(ImageFolder(root))
    (root / "cat" / "up").symlink_to("..")
    (root / "dog" / "a").symlink_to(root / "emu")
    (root / "dog" / "above").symlink_to(image_root)
    age(root)
    for _ in range(1 + from_cache):
        with pytest.warns(UserWarning, match=rf"^{root}: .*\bcat/up and 2 more ") as told:
            folder = ImageFolder(root)
        assert len(told) == 1
        assert names(folder) == expected
        assert folder.labels.tolist() == [0] * 8 + [1] * 8 + [2] * 8


def test_links_to_other_folders_are_followed_and_each_image_is_taken_once(image_root: Path, tmp_path: Path) -> None:
    root, pool = image_root / "train", tmp_path / "pool"
    for name in ("ant/0.png", "ant/more/1.png", "big/2.png", "big/deep/3.png"):
        save_image(pool / name)
    (pool / "big" / "round").symlink_to(pool / "big")
    (pool / "big" / "deep" / "ant").symlink_to(pool / "ant")
    (root / "ant").symlink_to(pool / "ant")  # a class
    (root / "cat" / "b").symlink_to(pool / "big" / "deep")
    (root / "cat" / "z").mkdir()
    (root / "cat" / "a").symlink_to(root / "cat" / "z")  # of two ways the one without links is taken
    save_image(root / "cat" / "z" / "9.png")
    (root / "dog" / "big").symlink_to(pool / "big")
    with pytest.warns(UserWarning, match=r"\bcat/a and 3 more "):  # cat/b/ant, dog/big/deep, dog/big/round
        folder = ImageFolder(root)
    assert folder.classes == ("ant", "cat", "dog", "emu")
    extra = [name for name in names(folder) if name.endswith(".png")]
    assert extra == ["ant/0.png", "ant/more/1.png", "cat/b/3.png", "cat/z/9.png", "dog/big/2.png"]
    assert [str(folder.labels[names(folder).index(name)]) for name in extra] == list("00112")


@pytest.mark.parametrize("kind", ["link", "in another class", "root"])
def test_a_folder_of_two_classes_is_refused(image_root: Path, kind: str) -> None:
    root = image_root / "train"
    target = {"link": root / "dog", "in another class": root / "dog" / "puppy", "root": image_root}[kind]
    save_image(target / "0.JPEG")
    (root / "zoo").symlink_to(target)
    with pytest.raises(InputError) as told:
        ImageFolder(root)
    assert all(str(folder) in str(told.value) for folder in (root / "zoo", *([] if kind == "root" else [target])))
