"""Several labels per image: ImageNet-ReaL's list, objects of names, and what cannot be used."""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from resnext_train.data.class_titles import imagenet_wnids, timm_file
from resnext_train.data.multi_labels import read_multi_labels
from resnext_train.errors import InputError, MissingLibraryError

TENCH, GOLDFISH, SHARK = "n01440764", "n01443537", "n01484850"  # classes 0, 1 and 2 of ImageNet-1K
CLASSES = ["cat", "dog", "emu"]


def labels_of(
    content: Any, names: Sequence[str], classes: Sequence[str], tmp_path: Path, among: Sequence[str] | None = None
) -> list[list[int]]:
    file = tmp_path / "labels.json"
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    found: NDArray[np.int64] = read_multi_labels(str(file), lambda i: names[i], len(names), classes, among)
    assert found.dtype == np.int64
    rows: list[list[int]] = found.tolist()
    return rows


def test_reals_list_is_found_by_image_number_and_wnid(tmp_path: Path) -> None:
    """In the classes' own order; 2 is no class here, and image 3 keeps none."""
    names = [f"/data/val/{TENCH}/ILSVRC2012_val_{i:08d}.JPEG" for i in (4, 1, 3)]
    names.append("val.pack: ILSVRC2012_val_00000002_n01440764.JPEG")
    content = [[1], [0, 2, 1, 0], [2], []]
    assert labels_of(content, names, ["x", GOLDFISH, TENCH], tmp_path) == [[-1, -1], [1, -1], [-1, -1], [2, 1]]


def test_timms_real_labels(tmp_path: Path) -> None:
    file = timm_file("imagenet_real_labels.json")
    if file is None:
        pytest.skip("timm is not installed")
    expected = json.loads(file.read_text())
    classes = imagenet_wnids()[::-1]
    found = read_multi_labels("imagenet-real", lambda i: f"ILSVRC2012_val_{i + 1:08d}.JPEG", 50_000, classes)
    assert found.shape == (50_000, max(map(len, expected)))
    assert found.nbytes < 8e6
    assert int((found.max(1) < 0).sum()) == 50_000 - 46_837, "the paper's number of images with labels"
    assert [[999 - n for n in row if n >= 0] for row in found.tolist()] == expected


def test_without_timm_real_is_refused_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingLibraryError, match=r"eval\.labels: .*resnext-train\[timm\]"):
        read_multi_labels("imagenet-real", str, 1, imagenet_wnids())


@pytest.mark.parametrize("image", ["val/cat/1.png", "cat/1.png", "cat/1", "1.png", "1"])
@pytest.mark.parametrize("name", ["/d/val/cat/1.png", "/d/val.pack: val/cat/1.png"])
def test_an_image_is_found_by_the_end_of_its_path(image: str, name: str, tmp_path: Path) -> None:
    assert labels_of({image: ["emu", "cat", 1, "emu"]}, [name], CLASSES, tmp_path) == [[2, 0, 1]]


def test_more_of_a_path_comes_before_less(tmp_path: Path) -> None:
    names = ["/d/cat/1.png", "/d/dog/1.png"]
    assert labels_of({"1.png": ["cat"], "dog/1.png": ["dog"]}, names, CLASSES, tmp_path) == [[0], [1]]
    assert labels_of({"1.png": ["cat"], "/d/dog/1.png": ["dog"]}, names, CLASSES, tmp_path) == [[0], [1]]
    with pytest.raises(InputError, match=r"1\.png may be /d/cat/1\.png or /d/dog/1\.png"):
        labels_of({"1.png": ["cat"]}, names, CLASSES, tmp_path)


def test_numbers_are_the_networks_and_labels_those_that_count(tmp_path: Path) -> None:
    """Classes of the network that are not evaluated, and others of ImageNet-1K, are no mistakes."""
    content = {"a": [0, 2, "dog", SHARK], "b": ["dog"], "c": []}
    assert labels_of(content, ["a", "b", "c"], ["emu", "cat"], tmp_path, CLASSES) == [[1, 0], [-1, -1], [-1, -1]]


@pytest.mark.parametrize(
    ("content", "names", "classes", "why"),
    [
        ({"a": ["cow"]}, ["a"], CLASSES, "a has the unknown class cow"),
        ({"a": [3]}, ["a"], CLASSES, "class 3; class numbers are 0 to 2"),
        ({"a": [-1]}, ["a"], CLASSES, "class -1"),
        ({"a": [True]}, ["a"], CLASSES, "class True"),
        ({"a": [1.0]}, ["a"], CLASSES, "class 1.0"),
        ({"a": [[0]]}, ["a"], CLASSES, r"class \[0\]"),
        ({"a": "cat"}, ["a"], CLASSES, "no list"),
        ({"a": ["cat"]}, ["a", "/d/b.png"], CLASSES, "no labels of /d/b.png"),
        ({"a": []}, ["a"], CLASSES, "no image with a label"),
        ('{"a": [0], "b": [0], "a": [1]}', ["a", "b"], CLASSES, "a more than once"),
        ([[0]], ["ILSVRC2012_val_00000001.JPEG"], CLASSES, "none of its classes"),
        ([[0]], ["ILSVRC2012_val_00000002.JPEG"], [TENCH], "1 images, without ILSVRC2012_val_00000002.JPEG"),
        ([[0]], ["ILSVRC2012_val_00000000.JPEG"], [TENCH], "1 images, without"),
        ([[0]], ["cat.JPEG"], [TENCH], "not of cat.JPEG"),
        ([[1000]], ["ILSVRC2012_val_00000001"], [TENCH], "class 1000"),
        ([0], ["ILSVRC2012_val_00000001"], [TENCH], "no list"),
        ("3", ["a"], CLASSES, "neither"),
        ("{", ["a"], CLASSES, "no JSON"),
        ("[" * 100_000, ["a"], CLASSES, "no JSON"),
    ],
    ids=lambda value: value[:20] if isinstance(value, str) else None,
)
def test_labels_that_cannot_be_used_are_refused(
    content: Any, names: list[str], classes: list[str], why: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=rf"^eval\.labels: {tmp_path / 'labels.json'}.* {why}"):
        labels_of(content, names, classes, tmp_path)


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for file in (tmp_path / "missing", tmp_path / "pipe", tmp_path):
        with pytest.raises(InputError, match=rf"^eval\.labels: {file} "):
            read_multi_labels(str(file), str, 1, CLASSES)
