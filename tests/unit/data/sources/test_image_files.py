"""Which images a list of words names, and in which order."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from resnext_train.data.sources.image_files import find_images
from resnext_train.errors import InputError


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "t"
    for name in ("b/2.JPEG", "b/10.png", "a.jpg", "b/c/d/1.webp", "z.txt", ".hidden.jpg", ".git/x.jpg", "b.jpg"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")
    (root / "empty").mkdir()
    (root / "b" / "up").symlink_to(root)
    (root / "b" / "self.jpg").symlink_to("self.jpg")
    monkeypatch.chdir(tmp_path)
    return root


def names(*words: str, stream: bytes = b"") -> list[str]:
    images, _ = find_images(words, lambda: stream)
    return [images.name(i) for i in range(len(images))]


IN_TREE = ["t/a.jpg", "t/b/10.png", "t/b/2.JPEG", "t/b/c/d/1.webp", "t/b/self.jpg", "t/b.jpg"]


def test_a_folder_gives_its_images_at_any_depth_by_path_each_once(tree: Path) -> None:
    assert names("t") == IN_TREE, "a link that leads back gives nothing twice, and one to itself is an image to miss"
    assert names("t/b", "t/a.jpg", "t/a.jpg") == [*IN_TREE[1:5], "t/a.jpg", "t/a.jpg"]


def test_patterns_and_files_of_any_ending(tree: Path) -> None:
    assert names("t/*.jpg") == ["t/a.jpg", "t/b.jpg"]
    assert names("t/**/*.webp", "t/z.txt", "no.jpg") == ["t/b/c/d/1.webp", "t/z.txt", "no.jpg"]
    assert names("t/b*") == [*IN_TREE[1:5], "t/b.jpg"], "a folder that matches is a folder"
    assert sorted(names("t/**")) == sorted([*IN_TREE, "t/z.txt"]), "what it matches is not taken from folders again"
    (tree / "odd[1].jpg").write_bytes(b"")
    assert names("t/odd[1].jpg") == ["t/odd[1].jpg"], "a file is no pattern"


def test_a_stream_of_paths(tree: Path) -> None:
    odd = os.fsdecode(b"new\nline\xff.jpg")
    assert names("-", stream=b"t/a.jpg\n\nt/b/c\nt/[x].jpg\n") == ["t/a.jpg", "t/b/c/d/1.webp", "t/[x].jpg"]
    assert names("t/b.jpg", "-", stream=os.fsencode(odd) + b"\0t/a.jpg\0") == ["t/b.jpg", odd, "t/a.jpg"]


def test_words_that_name_no_image_are_told(tree: Path) -> None:
    images, notes = find_images(["t/empty", "t/a.jpg", "q*.jpg"], bytes)
    assert len(images) == 1
    assert [("t/empty" in note, "q*.jpg" in note) for note in notes] == [(True, False), (False, True)]
    for words in (["t/empty"], ["q*.jpg"], ["-"]):
        with pytest.raises(InputError):
            find_images(words, bytes)


def test_a_list_is_passed_to_a_process_that_is_not_forked(tree: Path) -> None:
    images, _ = find_images(["t"], bytes)
    again = pickle.loads(pickle.dumps(images))
    assert [again.name(i) for i in range(len(again))] == IN_TREE
    assert again.labels[np.array([0, 5])].tolist() == [0, 0]
