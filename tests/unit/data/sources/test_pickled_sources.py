"""Sources in loader processes that are not forked: small to pickle, and the same images again."""

from __future__ import annotations

import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from helpers.images import MakeCifar, save_image
from helpers.packs import EXACT, RAW, packed
from resnext_train.data.sources.cifar_images import CifarImages
from resnext_train.data.sources.class_subset import ClassImages, ImageSubset
from resnext_train.data.sources.image_folder import ImageFolder
from resnext_train.data.sources.image_source import ImageSource
from resnext_train.data.sources.packed_images import PackedImages
from resnext_train.data.sources.synthetic_images import SyntheticImages
from resnext_train.errors import InputError
from resnext_train.prepare.image_splits import FolderSplit
from resnext_train.prepare.pack_records import Tier

MAKERS: dict[str, Callable[[Path, Path], ImageSource]] = {
    "folder": lambda root, out: ImageFolder(settled(root)),
    "folder that has just changed": lambda root, out: ImageFolder(root),
    "classes": lambda root, out: ClassImages(ImageFolder(settled(root)), ("emu", "cat")),
    "subset": lambda root, out: ImageSubset(ImageFolder(settled(root)), np.array([7, 3])),
    "exact": lambda root, out: pack_of(root, out, EXACT),
    "raw": lambda root, out: pack_of(root, out, RAW),
    "synthetic": lambda root, out: SyntheticImages(7, 30, 24, "val"),
}


def settled(root: Path) -> Path:
    """A tree whose list of files may be cached, as it has not changed just now."""
    for folder in (root, *root.iterdir()):
        os.utime(folder, (1e9, 1e9))
    return root


def pack_of(root: Path, out: Path, tier: Tier) -> PackedImages:
    packed(FolderSplit(root), out, tier)
    return PackedImages(out)


def again(source: ImageSource) -> ImageSource:
    copy: ImageSource = pickle.loads(pickle.dumps(source))
    return copy


def assert_same(source: ImageSource, copy: ImageSource) -> None:
    assert (copy.classes, copy.storage, len(copy)) == (source.classes, source.storage, len(source))
    assert copy.labels.tolist() == source.labels.tolist()
    for i in range(len(source)):
        assert copy.name(i) == source.name(i)
        one, two = source.image(i), copy.image(i)
        shape = one.height, one.width
        assert two.region(0, 0, *shape).equal(one.region(0, 0, *shape))


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_the_same_images_again(make: Callable[[Path, Path], ImageSource], image_root: Path, tmp_path: Path) -> None:
    source = make(image_root / "train", tmp_path / "pack")
    assert_same(source, again(again(source)))


def test_cifar_is_read_again(make_cifar: MakeCifar, tmp_path: Path) -> None:
    make_cifar(tmp_path, "CIFAR-10")
    source = CifarImages("CIFAR-10", tmp_path, "train")
    assert len(pickle.dumps(source)) < 500
    assert_same(source, again(source))


@pytest.mark.slow
def test_many_images_are_as_few_bytes_as_one(tmp_path: Path) -> None:
    root = tmp_path / "many"
    for name in ("cat", "dog"):
        (root / name).mkdir(parents=True)
        for i in range(1000):
            (root / name / f"{i}.JPEG").touch()
    folder = ImageFolder(settled(root))
    pack = pack_of(root, tmp_path / "pack", RAW)  # of unreadable images
    sources = folder, ClassImages(folder, ("dog", "cat")), pack, SyntheticImages(2, 100_000, 24, "train")
    for source in sources:
        assert len(source) >= 2000
        assert len(pickle.dumps(source)) < 1000


def test_another_list_of_files_is_refused(image_root: Path) -> None:
    """Its numbers would be those of other images, as after a change and a run that has scanned the folder since."""
    root = settled(image_root / "train")
    pickled = pickle.dumps(ImageFolder(root))
    (root / "cat" / "0.JPEG").unlink()
    os.utime(root / "cat", (1.1e9, 1.1e9))
    ImageFolder(root)
    with pytest.raises(InputError, match=str(root)):
        pickle.loads(pickled)


def test_another_pack_is_refused(image_root: Path, tmp_path: Path) -> None:
    pack = tmp_path / "pack"
    pickled = pickle.dumps(pack_of(image_root / "train", pack, RAW))
    shutil.rmtree(pack)
    save_image(image_root / "train" / "cat" / "new.JPEG")
    pack_of(image_root / "train", pack, RAW)
    with pytest.raises(InputError, match=str(pack)):
        pickle.loads(pickled)
