"""resnext prepare from the command line."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from helpers.archives import devkit, train_tar, val_tar
from helpers.commands import Refuses, prepare
from helpers.images import save_image
from helpers.packs import JPEGTRAN, needs_jpegtran
from resnext_train.data.decode.lazy_image import decode
from resnext_train.data.pack.pack_format import shard_name
from resnext_train.data.pack.pack_index import PackIndex
from resnext_train.data.sources.image_folder import ImageFolder
from resnext_train.prepare.pack_writer import write_index

ONE = ["--workers", "1"]


def files(root: Path) -> dict[str, Path]:
    return {str(p.relative_to(root)): p for p in root.rglob("*") if p.is_file()}


def pack(source: Path, out: Path, *options: str) -> int:
    return prepare(["pack", str(source), str(out), *options, *ONE])


def test_pack_and_check(image_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With workers, as it is by default."""
    out = tmp_path / "pack"
    assert prepare(["pack", str(image_root), str(out), "--workers", "2"]) == 0
    told = capsys.readouterr().out
    assert f"{out / 'train'}: 24 images" in told
    assert f"{out / 'val'}: 9 images" in told
    assert "would take" in told
    assert sorted(path.name for path in out.iterdir()) == ["report.json", "train", "val"]
    report = json.loads((out / "report.json").read_text())
    assert report["val"]["images"] == 9
    assert report["train"]["kinds"]["restart" if JPEGTRAN else "verbatim"] == 24
    assert prepare(["check", str(out), "--workers", "2"]) == 0
    assert capsys.readouterr().out.count(" images, none bad, 0 odd") == 2


def test_unpacked_pixels_are_those_that_were_packed(
    image_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for tier in ("exact", "raw"):
        assert pack(image_root, tmp_path / tier, "--tier", tier) == 0
        assert prepare(["unpack", str(tmp_path / tier), str(tmp_path / f"{tier} again")]) == 0
    assert "24 of them arrays, now PNG files" in capsys.readouterr().out
    originals = files(image_root)
    exact, raw = files(tmp_path / "exact again"), files(tmp_path / "raw again")
    assert exact.keys() == originals.keys()
    assert raw.keys() == {name.replace(".JPEG", ".png") for name in originals}
    for name, path in originals.items():
        pixels = decode(path.read_bytes())
        assert torch.equal(decode(exact[name].read_bytes()), pixels)
        assert torch.equal(decode(raw[name.replace(".JPEG", ".png")].read_bytes()), pixels)  # none is over 256 pixels
    again = ImageFolder(tmp_path / "exact again" / "val")
    assert again.labels.tolist() == PackIndex(tmp_path / "exact" / "val").label.tolist()


def test_resized(image_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert pack(image_root / "val", tmp_path / "pack", "--tier", "resized", "--size", "20", "--quality", "80") == 0
    assert "tier resized is lossy: images with a short side over 20 pixels" in capsys.readouterr().out
    index = PackIndex(tmp_path / "pack")
    assert (np.minimum(index.height, index.width) == 20).all()
    assert (index.tier, index.settings["size"], index.settings["quality"]) == ("resized", 20, 80)
    assert index.settings["interpolation"] == "bicubic"


def test_what_is_there_already_is_not_made_again(
    image_root: Path, tmp_path: Path, refuses: Refuses, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "pack"
    assert pack(image_root, out) == 0
    before = {name: path.stat().st_mtime_ns for name, path in files(out).items()}
    capsys.readouterr()
    assert pack(image_root, out) == 0
    assert capsys.readouterr().out.count("is already packed") == 2
    assert {name: path.stat().st_mtime_ns for name, path in files(out).items()} == before
    error = refuses(prepare, "pack", str(image_root), str(out), "--tier", "raw", *ONE)
    assert "holds a pack of other images or with other options" in error


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """Images of all sorts, two of which nothing reads."""
    root = tmp_path / "mixed"
    save_image(root / "a" / "good.JPEG")
    save_image(root / "a" / "png.JPEG", format="PNG")
    save_image(root / "a" / "cmyk.JPEG")
    Image.open(root / "a" / "cmyk.JPEG").convert("CMYK").save(root / "a" / "cmyk.JPEG", "JPEG")
    save_image(root / "b" / "gray.JPEG")
    Image.open(root / "b" / "gray.JPEG").convert("L").save(root / "b" / "gray.JPEG", "JPEG")
    whole = save_image(root / "b" / "short.JPEG", (200, 200)).read_bytes()
    (root / "b" / "short.JPEG").write_bytes(whole[:1500])
    (root / "b" / "empty.JPEG").write_bytes(b"")
    return root


@needs_jpegtran
def test_odd_and_unreadable_files(mixed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert pack(mixed, tmp_path / "pack") == 1
    told = capsys.readouterr().out
    assert "6 images (2 restart, 2 verbatim, 2 unreadable)" in told
    assert "odd: 1 × CMYK JPEG" in told
    assert "  a/png.JPEG: PNG named .JPEG" in told
    assert "unreadable: b/empty.JPEG: the file is empty" in told
    assert "unreadable: b/short.JPEG: " in told
    report = json.loads((tmp_path / "pack" / "report.json").read_text())["images"]
    assert [name for name, _ in report["unreadable"]] == ["b/empty.JPEG", "b/short.JPEG"]
    assert len(report["odd"]) == 2
    index = PackIndex(tmp_path / "pack")
    assert bytes(index.read(5)) == (mixed / "b" / "short.JPEG").read_bytes()
    assert prepare(["unpack", str(tmp_path / "pack"), str(tmp_path / "again")]) == 0
    assert files(tmp_path / "again").keys() == files(mixed).keys()
    assert (tmp_path / "again" / "b" / "empty.JPEG").read_bytes() == b""


def test_check_of_a_folder(mixed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert prepare(["check", str(mixed), *ONE]) == 1
    told = capsys.readouterr().out
    assert "bad: b/empty.JPEG: the file is empty" in told
    assert "bad: b/short.JPEG: " in told
    assert "odd: 1 × gray JPEG" in told
    assert told.endswith("6 images, 2 bad, 3 odd\n")
    for name in ("empty", "short"):
        (mixed / "b" / f"{name}.JPEG").unlink()
    assert prepare(["check", str(mixed), *ONE]) == 0
    assert capsys.readouterr().out.endswith("4 images, none bad, 3 odd\n")


def test_check_of_a_pack(mixed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "pack"
    pack(mixed, out)
    assert prepare(["check", str(out), *ONE]) == 1
    assert "bad: b/short.JPEG: image file is truncated" in capsys.readouterr().out
    index = PackIndex(out)
    shard, column = out / shard_name(0), index.header.columns["label"]["offset"]
    data = bytearray(shard.read_bytes())
    data[int(index.offset[1]) + 300] ^= 1
    shard.write_bytes(data)
    assert prepare(["check", str(out), *ONE]) == 1
    assert "bad: a/good.JPEG: the record is not what was written" in capsys.readouterr().out
    shard.write_bytes(data[:-1])
    assert prepare(["check", str(out), *ONE]) == 1
    assert "shard-00000.bin is" in capsys.readouterr().out
    shard.write_bytes(data)
    index_data = bytearray((out / "index.bin").read_bytes())
    index_data[column] ^= 1
    (out / "index.bin").write_bytes(index_data)
    assert prepare(["check", str(out), *ONE]) == 1
    assert "its arrays are not those that were written" in capsys.readouterr().out


def test_no_jpegtran(
    image_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert pack(image_root / "val", tmp_path / "pack") == 0
    told = capsys.readouterr().out
    assert "apt-get install libjpeg-turbo-progs, or brew install jpeg-turbo" in told
    assert "9 images (9 verbatim)" in told
    index = PackIndex(tmp_path / "pack")
    assert index.settings == {"jpegtran": False}
    assert bytes(index.read(0)) == (image_root / "val" / index.name(0)).read_bytes()


def test_names_that_are_no_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    strange = tmp_path / "images" / os.fsdecode(b"a\xff") / os.fsdecode(b"\xfe.JPEG")
    strange.parent.mkdir(parents=True)
    strange.write_bytes(b"no image")
    assert pack(tmp_path / "images", tmp_path / "pack") == 1
    assert r"unreadable: a\udcff/\udcfe.JPEG" in capsys.readouterr().out
    assert prepare(["check", str(tmp_path / "pack"), *ONE]) == 1
    assert prepare(["unpack", str(tmp_path / "pack"), str(tmp_path / "again")]) == 0
    assert files(tmp_path / "again").keys() == files(tmp_path / "images").keys()
    assert PackIndex(tmp_path / "pack").classes == (os.fsdecode(b"a\xff"),)


def test_classes_that_differ_are_said(image_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(image_root / "val" / "cat")
    assert pack(image_root, tmp_path / "pack", "--tier", "raw") == 0
    assert "different classes: 1 are only in train, 0 only in val" in capsys.readouterr().out


def test_options_that_make_no_sense(image_root: Path, tmp_path: Path, refuses: Refuses) -> None:
    source, out = str(image_root), str(tmp_path / "pack")
    for options, sentence in [
        (["--quality", "90"], "--quality is for --tier resized"),
        (["--tier", "raw", "--quality", "90"], "--quality is for --tier resized"),
        (["--size", "256"], "--size is for --tier resized and raw"),
        (["--tier", "resized", "--quality", "0"], "--quality 0: must be from 1 to 100"),
        (["--tier", "raw", "--size", "0"], "--size 0: must be from 8"),
        (["--verify", "none"], "--verify none: must be all, or a number"),
        (["--workers", "0"], "--workers 0: must be at least 1"),
    ]:
        assert sentence in refuses(prepare, "pack", source, out, *options)
    assert not (tmp_path / "pack").exists()


def test_sources_that_make_no_sense(image_root: Path, tmp_path: Path, refuses: Refuses) -> None:
    out = tmp_path / "pack"
    (tmp_path / "empty").mkdir()
    (tmp_path / "c" / "cifar-10-batches-py").mkdir(parents=True)
    pack(image_root / "val", tmp_path / "a" / "val", "--tier", "raw")
    for source, sentence in [
        (tmp_path / "nowhere", "is neither a folder nor a .csv file"),
        (tmp_path / "empty", "holds no class folders"),
        (tmp_path / "c", "holds CIFAR's own files"),
        (tmp_path / "a" / "val", "is a pack already"),
        (tmp_path / "a", "is a pack already"),
        (tmp_path / "x.csv", "x.csv cannot be read: No such file"),
    ]:
        assert sentence in refuses(prepare, "pack", str(source), str(out), *ONE)
    assert "which is only read" in refuses(prepare, "pack", str(image_root), str(image_root / "pack"), *ONE)
    assert not out.exists()
    assert "holds no finished pack" in refuses(prepare, "unpack", str(image_root), str(out))
    assert "is neither a folder nor" in refuses(prepare, "check", str(tmp_path / "nowhere"))
    (out / "train").mkdir(parents=True)
    (out / "train" / "plan.json").write_text("{}")
    assert "a pack that is not finished" in refuses(prepare, "check", str(out))


def test_unpacking_does_not_overwrite(image_root: Path, tmp_path: Path, refuses: Refuses) -> None:
    pack(image_root, tmp_path / "pack", "--tier", "raw")
    assert "is not empty, and no file is overwritten" in refuses(
        prepare, "unpack", str(tmp_path / "pack"), str(image_root)
    )


@pytest.mark.parametrize("name", [b"/etc/x.JPEG", b"../x.JPEG", b"a/../../x.JPEG", b"a/\0b.JPEG", b""])
def test_a_pack_from_elsewhere_cannot_write_where_it_should_not(
    name: bytes, image_root: Path, tmp_path: Path, refuses: Refuses
) -> None:
    out = tmp_path / "pack"
    pack(image_root / "val", out, "--tier", "raw")
    index = PackIndex(out)
    columns = {c: np.array(getattr(index, c)) for c in ("shard", "offset", "length", "height", "width", "label")}
    columns |= {"kind": np.array(index.kind), "digest": np.array(index.digest)}
    names = [os.fsencode(index.name(i)) for i in range(9)]
    names[5] = name
    columns["name_ends"], columns["names"] = np.cumsum([len(n) for n in names]), np.frombuffer(b"".join(names), "u1")
    about = {k: v for k, v in index.header._asdict().items() if k not in ("images", "columns", "bytes", "digest")}
    write_index(out, about, columns)
    error = refuses(prepare, "unpack", str(out), str(tmp_path / "again"))
    assert "leads out of the folder to write to; nothing was written" in error
    assert not (tmp_path / "again").exists()
    assert prepare(["check", str(out), *ONE]) == 1


def test_imagenet(tmp_path: Path, refuses: Refuses, capsys: pytest.CaptureFixture[str]) -> None:
    train, _ = train_tar(tmp_path, 3)
    val, out = val_tar(tmp_path), tmp_path / "pack"
    wnids = tmp_path / "wnids.txt"
    wnids.write_text("n02\nn01\nn01\nn00\n")
    both = ["imagenet", "--train-tar", str(train), "--val-tar", str(val), *ONE]
    assert prepare([*both, "--val-wnids", str(wnids), "--out", str(out)]) == 0
    told = capsys.readouterr().out
    assert "holds 3 classes; ImageNet 2012 has 1,000" in told
    assert "holds 4 images; ImageNet 2012 has 50,000 for validation" in told
    assert f"{out / 'train'}: 9 images" in told
    assert "the training archive holds 9 images; ImageNet 2012 has 1,281,167" in told
    assert PackIndex(out / "val").classes == PackIndex(out / "train").classes == ("n00", "n01", "n02")
    assert prepare(["check", str(out), *ONE]) == 0
    for options, sentence in [
        ([], "give --train-tar, --val-tar or both"),
        (["--val-tar", str(val)], "give either --devkit or --val-wnids"),
        (["--train-tar", str(train), "--val-wnids", str(wnids)], "--val-wnids belongs to --val-tar"),
        (["--train-tar", str(val)], "give the archive that holds a WNID.tar per class"),
        (["--train-tar", str(tmp_path / "no.tar")], "no.tar cannot be read"),
    ]:
        assert sentence in refuses(prepare, "imagenet", *options, "--out", str(tmp_path / "no"), *ONE)
    kit = devkit(tmp_path)
    assert prepare(["imagenet", "--val-tar", str(val), "--devkit", str(kit), "--out", str(tmp_path / "v"), *ONE]) == 0
    assert PackIndex(tmp_path / "v" / "val").header.titles["n01"] == "words of n01, too"


@needs_jpegtran
@pytest.mark.parametrize("damage", ["a piece missing", "a piece zeroed"])
def test_check_finds_damage_that_decoders_let_pass(
    image_root: Path, tmp_path: Path, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = save_image(image_root / "val" / "dog" / "large.JPEG", (300, 200), quality=95)
    data = path.read_bytes()
    third = len(data) // 3
    path.write_bytes(data[:third] + (b"" if damage == "a piece missing" else bytes(third)) + data[2 * third :])
    assert decode(path.read_bytes()).shape == (3, 200, 300), "no decoder refuses it"
    assert prepare(["check", str(image_root / "val"), *ONE]) == 1
    assert "bad: dog/large.JPEG: its data is damaged: Corrupt JPEG data" in capsys.readouterr().out
    assert pack(image_root / "val", tmp_path / "pack") == 0, "it is kept as it is"
    assert prepare(["check", str(tmp_path / "pack"), *ONE]) == 1


def test_check_of_a_pack_beside_a_folder(image_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert pack(image_root / "train", tmp_path / "root" / "train") == 0
    shutil.copytree(image_root / "val", tmp_path / "root" / "val")
    assert prepare(["check", str(tmp_path / "root"), *ONE]) == 0
    assert capsys.readouterr().out.count("none bad") == 2
    (tmp_path / "root" / "val" / "dog" / "0.JPEG").write_bytes(b"")
    assert prepare(["check", str(tmp_path / "root"), *ONE]) == 1
    assert "bad: dog/0.JPEG: the file is empty" in capsys.readouterr().out


def test_a_damaged_record_is_not_unpacked(image_root: Path, tmp_path: Path, refuses: Refuses) -> None:
    assert pack(image_root / "val", tmp_path / "pack", "--tier", "raw") == 0
    shard = tmp_path / "pack" / shard_name(0)
    data = bytearray(shard.read_bytes())
    data[-5] ^= 1
    shard.write_bytes(data)
    told = refuses(prepare, "unpack", str(tmp_path / "pack"), str(tmp_path / "again"))
    assert "is not what was written; copy the pack again" in told


def test_packing_again_what_holds_unreadable_images_says_so_again(
    image_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (image_root / "val" / "dog" / "0.JPEG").write_bytes(b"")
    assert pack(image_root / "val", tmp_path / "pack") == 1
    capsys.readouterr()
    assert pack(image_root / "val", tmp_path / "pack") == 1
    assert "unreadable: 1 of its images" in capsys.readouterr().out
    assert prepare(["check", str(tmp_path / "pack"), *ONE]) == 1
    assert "bad: dog/0.JPEG: the file is empty" in capsys.readouterr().out


def test_tables_that_are_none(image_root: Path, tmp_path: Path, refuses: Refuses) -> None:
    table = tmp_path / "table.csv"
    for content, told in (
        (f"{'x' * 200_000},dog\n", "is not a table of path,label"),
        (f"{'x' * 300},dog\n", "is not a file"),
    ):
        table.write_text(content)
        assert told in refuses(prepare, "pack", str(table), str(tmp_path / "out"), *ONE)
