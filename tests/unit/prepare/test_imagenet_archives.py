"""ImageNet's archives, made up small."""

from __future__ import annotations

import io
import re
import tarfile
from pathlib import Path

import pytest

from helpers.archives import CLASSES, add, devkit, meta_mat, tar_of, train_tar, val_tar
from helpers.images import save_image
from helpers.packs import content, packed
from resnext_train.data.pack.pack_index import PackIndex
from resnext_train.errors import InputError, MissingLibraryError
from resnext_train.prepare import imagenet_devkit
from resnext_train.prepare.image_splits import FolderSplit, parts_of
from resnext_train.prepare.imagenet_archives import TrainSplit, members, remarks, val_split
from resnext_train.prepare.imagenet_devkit import read_devkit, read_wnids


def test_the_training_archive_gives_the_same_pack_as_the_folder(tmp_path: Path) -> None:
    archive, tree = train_tar(tmp_path)
    split = TrainSplit(archive, {"n01": "a dog", "n77": "not there"})
    assert split.parts == 2  # eight classes a shard
    assert split.images is None
    packed(split, tmp_path / "pack")
    packed(FolderSplit(tree), tmp_path / "other")
    mine, other = content(tmp_path / "pack"), content(tmp_path / "other")
    assert mine[2:] == other[2:]
    index = PackIndex(tmp_path / "pack")
    assert index.label.tolist() == [c for c in range(10) for _ in range(3)]
    assert index.header.titles == {"n01": "a dog"}
    assert "holds 10 classes; ImageNet 2012 has 1,000" in " ".join(remarks({"train": split}))


def test_labels_of_the_validation_images(tmp_path: Path) -> None:
    kit = read_devkit(devkit(tmp_path))
    assert kit.val_labels == ["n03", "n01", "n02", "n03"]
    assert kit.titles == {name: f"words of {name}, too" for name in CLASSES}
    split = val_split(val_tar(tmp_path), kit.val_labels, kit.titles, "devkit")
    assert split.classes == ("n01", "n02", "n03")
    listed = [item for part in parts_of(split) for item in part.items()]
    name = "ILSVRC2012_val_{:08d}.JPEG"
    assert [(item.name, item.label) for item in listed] == [
        ("n01/" + name.format(2), 0),
        ("n02/" + name.format(3), 1),
        ("n03/" + name.format(1), 2),
        ("n03/" + name.format(4), 2),
    ]
    assert [item.read() for item in listed] == [(tmp_path / item.name[4:]).read_bytes() for item in listed]
    (tmp_path / "wnids.txt").write_text("n03\nn01\nn02\nn03\n")
    assert read_wnids(tmp_path / "wnids.txt") == kit.val_labels


def test_labels_and_images_that_do_not_belong_together(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"--val-tar: .* 3 images.* 4 labels"):
        val_split(val_tar(tmp_path, 3), ["n01"] * 4, {}, "devkit")
    with pytest.raises(InputError, match=r"--val-tar: .*/a\.tar .* a\.JPEG, .*number"):
        val_split(tar_of({"a.JPEG": b"1"}, tmp_path / "a.tar"), ["n01"], {}, "devkit")


@pytest.mark.parametrize("truth", ["1\n4\n", "0\n", "9\n", "x\n"])
def test_labels_that_are_no_class(truth: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"--devkit: .*/devkit\.tar\.gz .*damaged"):
        read_devkit(devkit(tmp_path, truth))


@pytest.mark.parametrize("place", [320, 384])
def test_a_devkit_by_which_its_reader_crashes_is_damaged(place: int, tmp_path: Path) -> None:
    """SciPy 1.17 ends by SIGSEGV where a number in a struct is said to be a matrix."""
    meta = bytearray(meta_mat(tmp_path / "meta.mat"))
    meta[place] = 14
    with pytest.raises(InputError, match=r"--devkit: .*/devkit\.tar\.gz .*damaged"):
        read_devkit(devkit(tmp_path, meta=bytes(meta)))


@pytest.mark.parametrize("name", ["../../x", "/x", "..", "x" * 300])
def test_a_devkit_whose_classes_could_be_no_folders(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"--devkit: .*cannot be a class"):
        read_devkit(devkit(tmp_path, meta=meta_mat(tmp_path / "meta.mat", [name, "n01", "n02"])))


def test_devkits_that_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"--devkit: .*/x\.tar\.gz .*meta\.mat;.* ILSVRC2012_devkit_t12\.tar\.gz"):
        read_devkit(tar_of({"x": b"1"}, tmp_path / "x.tar.gz"))
    (tmp_path / "y.tar.gz").write_bytes(b"no tar")
    with pytest.raises(InputError, match=r"--devkit: .*/y\.tar\.gz .*read: "):
        read_devkit(tmp_path / "y.tar.gz")
    whole = devkit(tmp_path).read_bytes()
    (tmp_path / "y.tar.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"--devkit: .*/y\.tar\.gz "):
        read_devkit(tmp_path / "y.tar.gz")
    monkeypatch.setattr(imagenet_devkit, "find_spec", lambda name: None)
    with pytest.raises(MissingLibraryError, match=r"pip install 'resnext-train\[imagenet\]'.*--val-wnids"):
        read_devkit(tmp_path / "devkit.tar.gz")


@pytest.mark.parametrize("text", ["n01\n../n02\n", "n01 a/b", b"\xff\xfe"])
def test_wnids_that_are_none(text: str | bytes, tmp_path: Path) -> None:
    (tmp_path / "w.txt").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError, match=r"--val-wnids: .*w.txt"):
        read_wnids(tmp_path / "w.txt")


@pytest.mark.parametrize("format_", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT])
def test_members_are_found_by_offset(format_: int, tmp_path: Path) -> None:
    long = "d/" * 40 + "é" * 30 + ".JPEG"
    files = {"b.JPEG": b"b" * 1000, "./a.JPEG": b"a", long: b"c" * 512, "empty.JPEG": b""}
    path = tar_of(files, tmp_path / "x.tar", format_)
    with tarfile.open(path, "a", format=format_) as archive:
        entry = tarfile.TarInfo("d")
        entry.type = tarfile.DIRTYPE
        archive.addfile(entry)
    found = members(str(path))
    assert [m.name for m in found] == sorted(["a.JPEG", "b.JPEG", long, "empty.JPEG"])
    data = path.read_bytes()
    files["a.JPEG"] = files.pop("./a.JPEG")
    assert {m.name: data[m.offset : m.offset + m.size] for m in found} == files
    outer = tar_of({"0.txt": b"x", "in.tar": data}, tmp_path / "outer.tar")
    (inner,) = (m for m in members(str(outer)) if m.name == "in.tar")
    outer_data = outer.read_bytes()
    again = members(str(outer), inner.offset, inner.size)
    assert {m.name: outer_data[m.offset : m.offset + m.size] for m in again} == files


@pytest.mark.parametrize("name", ["/etc/passwd", "../x.JPEG", "a/../../x.JPEG", "a/.."])
def test_members_that_lead_out_are_refused(name: str, tmp_path: Path) -> None:
    path = tar_of({"good.JPEG": b"1", name: b"2"}, tmp_path / "x.tar")
    with pytest.raises(InputError, match=rf"/x\.tar: .*'{re.escape(name)}' leads out"):
        members(str(path))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_are_refused(kind: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w") as archive:
        add(archive, "good.JPEG", b"1")
        entry = tarfile.TarInfo("bad.JPEG")
        entry.type, entry.linkname = kind, "/etc/passwd"
        archive.addfile(entry)
    with pytest.raises(InputError, match=r"/x\.tar: .*'bad\.JPEG' is a link"):
        members(str(path))
    outer = tar_of({"n01.tar": path.read_bytes()}, tmp_path / "outer.tar")
    (part,) = parts_of(TrainSplit(outer, {}))
    with pytest.raises(InputError, match=r"/outer\.tar: n01\.tar: .*'bad\.JPEG' is a link"):
        list(part.items())


def test_an_archive_cut_short_anywhere_is_refused(tmp_path: Path) -> None:
    path = tar_of({f"{i}.JPEG": bytes([65 + i]) * 700 for i in range(3)}, tmp_path / "x.tar")
    whole = path.read_bytes()
    end = 3 * (512 + 1024)
    for size in (0, 1, 100, 511, 512, 600, 1535, 1536, 1800, 2048, 3000, end - 1, end, end + 100, end + 511):
        path.write_bytes(whole[:size])
        with pytest.raises(InputError, match=r"x.tar is (cut short|damaged)"):
            members(str(path))
    path.write_bytes(whole[: end + 512])
    assert len(members(str(path))) == 3


def with_size_field(field: bytes) -> bytes:
    """A tar whose first header states its size in this way, with a valid checksum."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        add(archive, "a.JPEG", b"1" * 700)
    data = bytearray(file.getvalue())
    data[124:136] = field
    data[148:156] = b" " * 8
    data[148:156] = b"%06o\0 " % sum(data[:512])  # of the header with blanks in place of the sum
    return bytes(data)


def with_pax_headers(headers: dict[str, str]) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive:
        entry = tarfile.TarInfo("a.JPEG")
        entry.size, entry.pax_headers = 700, headers
        archive.addfile(entry, io.BytesIO(b"1" * 700))
    return file.getvalue()


DAMAGED_HEADERS = {
    "size beyond any file": with_size_field(b"\x80\x7f" + b"\xff" * 10),
    "size of 2^63": with_size_field(b"\x80\0\0\0\x80" + bytes(7)),
    "negative size": with_size_field((-1024).to_bytes(12, "big", signed=True)),
    "negative size in a PAX header": with_pax_headers({"size": "-1024"}),
    "sparse file 1.0 without a map": with_pax_headers({"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}),
    "sparse map that is no numbers": with_pax_headers({"GNU.sparse.map": "x,y"}),
    "a long extension, which tarfile would read for minutes": with_pax_headers({"comment": "1" * 200_000}),
    "sparse size that is no number": with_pax_headers({"GNU.sparse.size": "x"}),
}


@pytest.mark.parametrize("kind", DAMAGED_HEADERS)
def test_damaged_headers_are_refused_in_a_sentence(kind: str, tmp_path: Path) -> None:
    pytest.importorskip("scipy.io", reason="needs scipy")
    path = tmp_path / "x.tar"
    path.write_bytes(DAMAGED_HEADERS[kind])
    with pytest.raises(InputError, match=r"/x\.tar (is damaged|cannot be read|is cut short)"):
        members(str(path))
    with pytest.raises(InputError, match=r"--devkit: .*/x\.tar (cannot be read|holds no)"):
        read_devkit(path)
    (part,) = parts_of(TrainSplit(tar_of({"n01.tar": path.read_bytes()}, tmp_path / "o.tar"), {}))
    with pytest.raises(InputError, match=r"o\.tar: n01\.tar (is damaged|cannot be read|is cut short)"):
        list(part.items())


def test_inner_archives_that_are_damaged(tmp_path: Path) -> None:
    whole = tar_of({"a.JPEG": b"1" * 700}, tmp_path / "x.tar").read_bytes()
    for inner, sentence in [
        (whole[:1000], r"n01.tar is (cut short|damaged)"),
        (b"nonsense" * 100, r"n01.tar is damaged"),
        (tar_of({}, tmp_path / "x.tar").read_bytes(), r"n01.tar (holds no image|is damaged)"),
    ]:
        (part,) = parts_of(TrainSplit(tar_of({"n01.tar": inner}, tmp_path / "o.tar"), {}))
        with pytest.raises(InputError, match=rf"o.tar: {sentence}"):
            list(part.items())


def test_archives_of_the_wrong_kind(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"--train-tar: .*/val\.tar .* ILSVRC2012_val_00000001\.JPEG;.* WNID\.tar"):
        TrainSplit(val_tar(tmp_path), {})
    (tmp_path / "x.tar").write_bytes(b"this is no tar" * 100)
    with pytest.raises(InputError, match=r"/x\.tar .*uncompressed tar"):
        members(str(tmp_path / "x.tar"))
    with pytest.raises(InputError, match=r"/y\.tar .*No such file"):
        members(str(tmp_path / "y.tar"))


@pytest.mark.parametrize("names", [("x_1", "y_1", "z_2"), ("x_1", "x_2", "x_4"), ("x_0", "x_1", "x_2")])
def test_validation_images_that_are_not_numbered_from_one_on(tmp_path: Path, names: tuple[str, ...]) -> None:
    """Their labels would be shifted, silently, as long as they are as many."""
    data = save_image(tmp_path / "image.JPEG").read_bytes()
    archive = tar_of({f"{name}.JPEG": data for name in names}, tmp_path / "val.tar")
    with pytest.raises(InputError, match=r"--val-tar: .*/val\.tar .*\b1 to 3,"):
        val_split(archive, ["n01", "n02", "n03"], {}, "labels")
