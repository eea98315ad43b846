"""No archive, table or pack from elsewhere makes a command write outside the folder that it was given."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest

from helpers.archives import tar_of
from helpers.commands import Refuses, prepare
from helpers.images import save_image
from helpers.packs import RAW, packed
from resnext_train.data.pack.pack_index import PackIndex
from resnext_train.prepare.image_splits import FolderSplit
from resnext_train.prepare.pack_writer import write_index

ONE = ["--workers", "1"]
OUTSIDE = ["../../x.JPEG", "../x.JPEG", "/tmp/x.JPEG", "a/../../x.JPEG", "a/./x.JPEG", "a//x.JPEG", "a/..", ".."]


def tree(root: Path) -> set[Path]:
    return set(root.rglob("*"))


@pytest.fixture
def image(tmp_path: Path) -> bytes:
    return save_image(tmp_path / "image.JPEG").read_bytes()


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder well below the one that is watched."""
    folder = tmp_path / "a" / "b" / "work"
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    return folder


def imagenet(train: Path) -> list[str]:
    return ["imagenet", "--train-tar", str(train), "--out", "pack", *ONE]


@pytest.mark.parametrize("name", [*OUTSIDE, "é\0b.JPEG", "é/\0"])
@pytest.mark.parametrize("depth", ["outer", "inner", "val"])
def test_members_of_archives(name: str, depth: str, image: bytes, work: Path, tmp_path: Path, refuses: Refuses) -> None:
    """The names that are not ASCII are in a PAX header, which may hold a NUL: all others end there."""
    archive = work / "x.tar"
    if depth == "inner":
        inner = tar_of({"1.JPEG": image, name: image}, work / "inner.tar", tarfile.PAX_FORMAT).read_bytes()
        tar_of({"n01.tar": inner}, archive)
    else:
        suffix = ".tar" if depth == "outer" else ""
        tar_of({f"1.JPEG{suffix}": image, f"{name}{suffix}": image}, archive, tarfile.PAX_FORMAT)
    before = tree(tmp_path)
    arguments = imagenet(archive)
    if depth == "val":
        (work / "labels").write_text("n01\nn02\n")
        before.add(work / "labels")
        arguments = ["imagenet", "--val-tar", str(archive), "--val-wnids", "labels", "--out", "pack", *ONE]
    if depth == "outer" and name in ("a/..", ".."):  # with .tar after them these are names like others, of odd classes
        assert "WNID.tar" in refuses(prepare, *arguments)
    else:
        assert "leads out" in refuses(prepare, *arguments)
    assert {p for p in tree(tmp_path) - before if work / "pack" not in (p, *p.parents)} == set()
    assert not (work / "pack" / "train" / "index.bin").exists()


@pytest.mark.parametrize("name", ["..", ".", "", "n01/..", "n01/."])
def test_archives_of_a_class_called_like_a_folder_above(name: str, image: bytes, work: Path, refuses: Refuses) -> None:
    inner = tar_of({"1.JPEG": image}, work / "inner.tar").read_bytes()
    tar_of({"n01.tar": inner, f"{name}.tar": inner}, work / "x.tar")
    assert "WNID.tar" in refuses(prepare, *imagenet(work / "x.tar"))
    assert not (work / "pack").exists()


@pytest.mark.parametrize(
    "kind",
    [
        tarfile.SYMTYPE,
        tarfile.LNKTYPE,
        tarfile.CHRTYPE,
        tarfile.BLKTYPE,
        tarfile.FIFOTYPE,
        tarfile.GNUTYPE_SPARSE,
        b"Z",
    ],
)
def test_members_that_are_no_files(kind: bytes, image: bytes, work: Path, tmp_path: Path, refuses: Refuses) -> None:
    """A link to a folder outside, and an image below it, as if it were unpacked there."""

    def archive(path: Path) -> bytes:
        tar_of({"1.JPEG": image}, path)
        with tarfile.open(path, "a") as opened:
            entry = tarfile.TarInfo("link")
            entry.type, entry.linkname = kind, str(tmp_path)
            opened.addfile(entry)
            entry = tarfile.TarInfo("link/x.JPEG")
            opened.addfile(entry)
        return path.read_bytes()

    inner = archive(work / "inner.tar")
    tar_of({"n01.tar": inner}, work / "x.tar")
    before = tree(tmp_path)
    for path in (work / "x.tar", work / "inner.tar"):
        assert "'link' is a link" in refuses(prepare, *imagenet(path))
    assert {p for p in tree(tmp_path) - before if work / "pack" not in (p, *p.parents)} == set()


def forged(pack: Path, names: Iterable[bytes]) -> None:
    """Give the first images of a pack other names."""
    index = PackIndex(pack)
    columns = {c: np.array(getattr(index, c)) for c in ("shard", "offset", "length", "height", "width", "label")}
    columns |= {"kind": np.array(index.kind), "digest": np.array(index.digest)}
    new = [*names]
    new += [os.fsencode(index.name(i)) for i in range(len(new), len(index))]
    columns["name_ends"], columns["names"] = np.cumsum([len(n) for n in new]), np.frombuffer(b"".join(new), "u1")
    about = {k: v for k, v in index.header._asdict().items() if k not in ("images", "columns", "bytes", "digest")}
    write_index(pack, about, columns)


@pytest.mark.parametrize("split", ["", "train", "val"])
@pytest.mark.parametrize("name", [*OUTSIDE, "a\0b", "\0", ".", "a/", "/"])
def test_names_in_packs(name: str, split: str, image_root: Path, work: Path, tmp_path: Path, refuses: Refuses) -> None:
    for each in {split, "val" if split else ""}:
        packed(FolderSplit(image_root / "val"), work / "pack" / each, RAW)
    forged(work / "pack" / split, [b"a/fine.png", name.encode()])
    before = tree(tmp_path)
    assert f" {name!r} leads out" in refuses(prepare, "unpack", "pack", "out")
    assert tree(tmp_path) == before


def test_odd_names_in_packs_stay_inside(image_root: Path, work: Path, tmp_path: Path) -> None:
    packed(FolderSplit(image_root / "val"), work / "pack", RAW)
    names = [b"...", b"..a/b", b"a\nb/c", b"~/x", b"$HOME", b"-rf", b"c:\\x", b"\xff\xfe/\x1b", b" "]
    forged(work / "pack", names)
    before = tree(tmp_path)
    assert prepare(["unpack", "pack", "out"]) == 0
    new = tree(tmp_path) - before
    assert all(work / "out" in (path, *path.parents) for path in new)
    assert sum(path.is_file() for path in new) == len(names)


@pytest.mark.parametrize("names", [(b"a.png", b"a.png/b"), (b"a.png/b", b"a"), (b"a.png", b"a.jpg"), (b"x" * 300,)])
def test_names_in_packs_that_cannot_be(
    names: tuple[bytes, ...], image_root: Path, work: Path, refuses: Refuses
) -> None:
    packed(FolderSplit(image_root / "val"), work / "pack", RAW)
    forged(work / "pack", names)
    refuses(prepare, "unpack", "pack", "out")


def test_unpacking_does_not_follow_a_link_that_is_there_already(
    image_root: Path, work: Path, tmp_path: Path, refuses: Refuses
) -> None:
    packed(FolderSplit(image_root / "val"), work / "pack", RAW)
    (work / "out").mkdir()
    (tmp_path / "outside").mkdir()
    (work / "out" / "cat").symlink_to(tmp_path / "outside")
    assert "error: out is not empty" in refuses(prepare, "unpack", "pack", "out")
    assert not list((tmp_path / "outside").iterdir())
