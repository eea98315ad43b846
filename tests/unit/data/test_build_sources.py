"""The classes of the splits, and which of them an evaluation counts."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from helpers.images import save_image
from resnext_train.config import EvalSection, FolderData
from resnext_train.data.build_loaders import build_evaluation
from resnext_train.data.build_sources import build_splits, build_train, build_val
from resnext_train.data.sources.class_subset import read_class_names
from resnext_train.data.sources.image_folder import ImageFolder
from resnext_train.data.split_folders import find_splits
from resnext_train.errors import InputError

KNOWN = ("yak", "emu", "cat", "dog")
"""A network's classes in an order of their own; the data has all but yak."""


def folder(root: Path, val_classes: Literal["same", "subset"]) -> FolderData:
    return FolderData(root=str(root), val_classes=val_classes)


def test_val_may_lack_classes_if_the_recipe_says_so(image_root: Path) -> None:
    shutil.rmtree(image_root / "val" / "cat")
    with pytest.raises(InputError, match=r"\btrain: cat\).*data\.val_classes=subset"):
        build_splits(folder(image_root, "same"))
    splits = build_splits(folder(image_root, "subset"))
    assert splits.classes == ("cat", "dog", "emu")
    assert splits.val.classes == ("dog", "emu")
    images = build_evaluation(EvalSection(), splits.val, splits.classes).images
    assert images.labels.tolist() == [1, 1, 1, 2, 2, 2], "by name in train's classes, not by position in val's"


@pytest.mark.parametrize("val_classes", ["same", "subset"])
def test_val_never_has_a_class_that_train_lacks(val_classes: Literal["same", "subset"], image_root: Path) -> None:
    shutil.rmtree(image_root / "val" / "cat")
    save_image(image_root / "val" / "yak" / "0.JPEG")
    with pytest.raises(InputError, match=r"\bval: yak\b") as caught:
        build_splits(folder(image_root, val_classes))
    assert "subset" not in str(caught.value), "which would not help"


def test_the_listed_classes_alone_are_counted(image_root: Path, tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text("dog\nyak\nemu\n")
    val = build_val(folder(image_root, "same"))
    evaluation = build_evaluation(EvalSection(classes=str(tmp_path / "classes.txt")), val, KNOWN)
    assert evaluation.outputs is not None
    assert [KNOWN[i] for i in evaluation.outputs] == ["yak", "emu", "dog"]
    images = evaluation.images
    assert images.classes == ("yak", "emu", "dog")
    assert images.labels.tolist() == [2, 2, 2, 1, 1, 1]
    assert [Path(images.name(i)).parent.name for i in range(6)] == ["dog"] * 3 + ["emu"] * 3
    original = ImageFolder(image_root / "val")
    assert np.array_equal(images.image(4).region(0, 0, 40, 40), original.image(7).region(0, 0, 40, 40))
    assert evaluation.description == f"{EvalSection().description}, among 3 of 4 classes"


def as_folder(path: Path) -> None:
    for name in ("emu", "dog", ".git"):
        (path / name).mkdir(parents=True)
    (path / "README").write_text("")


SAME_LISTS: dict[str, Callable[[Path], object]] = {
    "order": lambda path: path.write_text("emu\ndog\n"),
    "blank lines and space": lambda path: path.write_text("\n  dog\t\n\n \nemu"),
    "Windows": lambda path: path.write_bytes(b"\xef\xbb\xbfdog\r\nemu\r\n"),
    "old Macintosh": lambda path: path.write_bytes(b"dog\remu\r"),
    "folder": as_folder,
}


@pytest.mark.parametrize("form", SAME_LISTS)
def test_the_same_classes_in_another_form(form: str, image_root: Path, tmp_path: Path) -> None:
    SAME_LISTS[form](tmp_path / "classes")
    evaluation = build_evaluation(
        EvalSection(classes=str(tmp_path / "classes")), build_val(folder(image_root, "same")), KNOWN
    )
    assert evaluation.outputs is not None
    assert evaluation.outputs.tolist() == [1, 3]
    assert evaluation.images.labels.tolist() == [1, 1, 1, 0, 0, 0]


def test_names_with_odd_characters(tmp_path: Path) -> None:
    names = ("two words", "größe", "a\u2028b", "#1")
    for name in names:
        save_image(tmp_path / "val" / name / "0.png")
    (tmp_path / "classes.txt").write_text("\n".join(names), encoding="utf-8")
    evaluation = build_evaluation(
        EvalSection(classes=str(tmp_path / "classes.txt")), ImageFolder(tmp_path / "val"), names
    )
    assert sorted(evaluation.images.labels.tolist()) == [0, 1, 2, 3]


def test_classes_that_the_network_does_not_know_are_refused_unless_the_list_leaves_them_out(
    image_root: Path, tmp_path: Path
) -> None:
    (tmp_path / "classes.txt").write_text("dog\n")
    val = build_val(folder(image_root, "same"))
    with pytest.raises(InputError, match=r": cat, emu$"):
        build_evaluation(EvalSection(), val, ("dog", "yak"))
    images = build_evaluation(EvalSection(classes=str(tmp_path / "classes.txt")), val, ("yak", "dog")).images
    assert images.labels.tolist() == [0, 0, 0]


LISTS_THAT_ARE_NONE: dict[str, tuple[bytes | None, str]] = {
    "missing": (None, "not found"),
    "empty": (b"", " no class;"),
    "blank": (b" \n\n", " no class;"),
    "binary": (b"\xff\xfe\x00", "UTF-8"),
    "twice": (b"dog\nemu\n dog\n", " dog 2 times"),
    "unknown": (b"ox\ndog\nape\nbat\nelk\n", ": ox, ape, bat and 1 more$"),
    "none of the data": (b"yak\n", " no image "),
}


@pytest.mark.parametrize("kind", LISTS_THAT_ARE_NONE)
def test_lists_that_cannot_be_used(kind: str, image_root: Path, tmp_path: Path) -> None:
    content, told = LISTS_THAT_ARE_NONE[kind]
    path = tmp_path / "classes.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=f"eval.classes: .*{told}") as caught:
        build_evaluation(EvalSection(classes=str(path)), build_val(folder(image_root, "same")), KNOWN)
    assert f" {path} " in str(caught.value)


@pytest.mark.parametrize(("kind", "told"), [("pipe", "pipe"), ("/dev/zero", "device"), ("large", "10,000,000")])
def test_lists_without_end_are_refused_at_once(kind: str, told: str, tmp_path: Path) -> None:
    path = tmp_path / kind
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "large":
        path.write_bytes(b"a\n" * 5_000_001)
    with pytest.raises(InputError, match=rf"^eval.classes: {path} .*{told}"):
        read_class_names(path, "eval.classes")


def test_a_folder_without_class_folders(image_root: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"eval\.classes: .*/empty .*no class;"):
        build_evaluation(EvalSection(classes=str(tmp_path / "empty")), build_val(folder(image_root, "same")), KNOWN)


def test_only_some_classes_of_both_splits(image_root: Path, tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text("emu\ncat\n")
    section = FolderData(root=str(image_root), only_classes=str(tmp_path / "classes.txt"))
    splits = build_splits(section)
    assert splits.classes == splits.val.classes == ("cat", "emu"), "sorted, whatever the list's order"
    assert splits.train.labels.tolist() == [0] * 8 + [1] * 8
    assert {Path(splits.train.name(i)).parent.name for i in range(8, 16)} == {"emu"}
    assert build_val(section).labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert splits.storage == {"train": "files", "val": "files"}


def test_classes_to_use_that_the_data_does_not_have(image_root: Path, tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text("emu\nyak\n")
    with pytest.raises(InputError, match=r"data\.only_classes: .*/classes\.txt .*: yak$"):
        build_splits(FolderData(root=str(image_root), only_classes=str(tmp_path / "classes.txt")))
    (tmp_path / "classes.txt").write_text("yak\n")
    with pytest.raises(InputError, match=r"data\.only_classes: .*/classes\.txt .*no class of "):
        build_splits(FolderData(root=str(image_root), only_classes=str(tmp_path / "classes.txt"), val_classes="subset"))


def test_training_images_alone_need_no_val(image_root: Path) -> None:
    shutil.rmtree(image_root / "val")
    for root in (image_root, image_root / "train"):
        source = build_train(FolderData(root=str(root)))
        assert (len(source), source.classes) == (24, ("cat", "dog", "emu"))


@pytest.mark.parametrize("name", ["val", "valid", "validation", "test"])
def test_the_validation_split_by_its_usual_names(name: str, image_root: Path) -> None:
    (image_root / "val").rename(image_root / name)
    (image_root / "notes").mkdir()
    splits = build_splits(folder(image_root, "same"))
    assert (len(splits.train), len(splits.val)) == (24, 9)
    assert (f"{name}/" in splits.note) == (name != "val"), "which is said"
    assert len(build_val(folder(image_root, "same"))) == 9


def test_val_comes_before_its_other_names(image_root: Path) -> None:
    shutil.copytree(image_root / "train", image_root / "test")
    assert len(build_splits(folder(image_root, "same")).val) == 9


def test_a_class_may_be_called_like_a_split(image_root: Path) -> None:
    for cat, name in (("cat", "test"), ("dog", "validation")):
        (image_root / "val" / cat).rename(image_root / "val" / name)
    assert build_val(folder(image_root / "val", "same")).classes == ("emu", "test", "validation")


def test_images_without_labels_are_no_split(image_root: Path) -> None:
    """As in ImageNet's test/."""
    save_image(image_root / "test" / "1.JPEG")
    shutil.rmtree(image_root / "val")
    assert find_splits(image_root) == {"train": image_root / "train"}
    with pytest.raises(InputError, match=f"{image_root}/val "):
        build_splits(folder(image_root / "train", "same"))


def test_the_split_that_was_named_is_taken(image_root: Path) -> None:
    shutil.copytree(image_root / "train", image_root / "test")
    assert len(build_splits(folder(image_root / "test", "same")).val) == 24


@pytest.mark.parametrize("given", ["train", "val"])
def test_a_split_given_as_the_root_means_the_folder_above_it(
    given: str, image_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(image_root / given)
    assert len(build_splits(folder(Path(), "same")).train) == 24
    splits = build_splits(folder(image_root / given, "same"))
    assert (len(splits.train), len(splits.val)) == (24, 9)
    assert str(image_root) in splits.note
    assert len(build_val(folder(image_root / "train", "same"))) == 24, "what is evaluated is what was named"
