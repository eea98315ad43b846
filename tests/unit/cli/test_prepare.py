"""resnext prepare from the command line."""

from __future__ import annotations

import json
import os
import re
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
from resnext_train.data.build_sources import open_images
from resnext_train.data.decode.lazy_image import decode
from resnext_train.data.pack.pack_format import shard_name
from resnext_train.data.pack.pack_index import PackIndex
from resnext_train.data.sources.image_folder import ImageFolder
from resnext_train.errors import InputError
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
    assert "1,281,167" not in told, "so small images do not tell how long ImageNet would take"
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
    assert re.search(r"\b24 .*\bPNG\b", capsys.readouterr().out)
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
    assert re.search(r"\bresized\b.* 20 pixels", capsys.readouterr().out)
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
    assert sorted(re.findall(rf"{re.escape(str(out))}/(\w+) .*already", capsys.readouterr().out)) == ["train", "val"]
    assert {name: path.stat().st_mtime_ns for name, path in files(out).items()} == before
    error = refuses(prepare, "pack", str(image_root), str(out), "--tier", "raw", *ONE)
    assert f" {out / 'train'} " in error
    assert "unfinished" not in error


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
    assert "unreadable: b/empty.JPEG: " in told
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
    assert "bad: b/empty.JPEG: " in told
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
    told = capsys.readouterr().out
    assert "bad: b/short.JPEG: " in told
    assert "a/good.JPEG" not in told
    index = PackIndex(out)
    shard, column = out / shard_name(0), index.header.columns["label"]["offset"]
    data = bytearray(shard.read_bytes())
    data[int(index.offset[1]) + 300] ^= 1
    shard.write_bytes(data)
    assert prepare(["check", str(out), *ONE]) == 1
    assert "bad: a/good.JPEG: " in capsys.readouterr().out
    shard.write_bytes(data[:-1])
    assert prepare(["check", str(out), *ONE]) == 1
    assert f"shard-00000.bin is {len(data) - 1:,} " in capsys.readouterr().out
    shard.write_bytes(data)
    index_data = bytearray((out / "index.bin").read_bytes())
    index_data[column] ^= 1
    (out / "index.bin").write_bytes(index_data)
    assert prepare(["check", str(out), *ONE]) == 1
    assert re.search(r"/index\.bin: .*arrays", capsys.readouterr().out)


def test_no_jpegtran(
    image_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert pack(image_root / "val", tmp_path / "pack") == 0
    told = capsys.readouterr().out
    assert "apt-get install libjpeg-turbo-progs" in told
    assert "brew install jpeg-turbo" in told
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
    assert re.search(r"\b1 .*\btrain, 0 .*\bval\b", capsys.readouterr().out)


def test_options_that_make_no_sense(image_root: Path, tmp_path: Path, refuses: Refuses) -> None:
    source, out = str(image_root), str(tmp_path / "pack")
    for options, told in [
        (["--quality", "90"], ("--quality ", "--tier resized", "tier exact")),
        (["--tier", "raw", "--quality", "90"], ("--quality ", "--tier resized", "tier raw")),
        (["--size", "256"], ("--size ", "--tier resized and raw", "tier exact")),
        (["--tier", "resized", "--quality", "0"], ("--quality 0: ", " 1 to 100")),
        (["--tier", "raw", "--size", "0"], ("--size 0: ", " 8 to ")),
        (["--verify", "none"], ("--verify none: ",)),
        (["--workers", "0"], ("--workers 0: ",)),
    ]:
        error = refuses(prepare, "pack", source, out, *options)
        assert all(fact in error for fact in told), error
    assert not (tmp_path / "pack").exists()


def test_sources_that_make_no_sense(image_root: Path, tmp_path: Path, refuses: Refuses) -> None:
    out = tmp_path / "pack"
    (tmp_path / "empty").mkdir()
    (tmp_path / "c" / "cifar-10-batches-py").mkdir(parents=True)
    pack(image_root / "val", tmp_path / "a" / "val", "--tier", "raw")
    for source, told in [
        (tmp_path / "nowhere", (f" {tmp_path / 'nowhere'} ", ".csv")),
        (tmp_path / "empty", (f" {tmp_path / 'empty'} ", "class folders")),
        (tmp_path / "c", (f" {tmp_path / 'c'} ", "cifar-10-batches-py")),
        (tmp_path / "a" / "val", (f" {tmp_path / 'a' / 'val'} ", "already")),
        (tmp_path / "a", (f" {tmp_path / 'a' / 'val'} ", "already")),
        (tmp_path / "x.csv", (f" {tmp_path / 'x.csv'} ", "No such file")),
    ]:
        error = refuses(prepare, "pack", str(source), str(out), *ONE)
        assert all(fact in error for fact in told), error
    error = refuses(prepare, "pack", str(image_root), str(image_root / "pack"), *ONE)
    assert f" {image_root / 'pack'} " in error
    assert f" {image_root}, " in error
    assert not out.exists()
    assert f" {image_root} " in refuses(prepare, "unpack", str(image_root), str(out))
    error = refuses(prepare, "check", str(tmp_path / "nowhere"))
    assert f" {tmp_path / 'nowhere'} " in error
    assert ".csv" in error
    (out / "train").mkdir(parents=True)
    (out / "train" / "plan.json").write_text("{}")
    error = refuses(prepare, "check", str(out))
    assert f" {out / 'train'} " in error
    assert "not finished" in error


def test_a_pack_without_its_index_is_no_folder_of_images(image_root: Path, tmp_path: Path, refuses: Refuses) -> None:
    out = tmp_path / "pack"
    pack(image_root, out, "--tier", "raw")
    (out / "train" / "index.bin").unlink()
    for command in (["check", str(out)], ["unpack", str(out), str(tmp_path / "again")]):
        assert f"{out / 'train'} " in refuses(prepare, *command)
    assert not (tmp_path / "again").exists()
    with pytest.raises(InputError, match="has lost its index"):
        open_images(out / "train")


def test_unpacking_does_not_overwrite(image_root: Path, tmp_path: Path, refuses: Refuses) -> None:
    pack(image_root, tmp_path / "pack", "--tier", "raw")
    assert f" {image_root} " in refuses(prepare, "unpack", str(tmp_path / "pack"), str(image_root))


def test_imagenet_as_kaggle_has_it(image_root: Path, tmp_path: Path) -> None:
    """A flat val/, and its labels three folders above it; test/ is flat, too, and has none."""
    data = tmp_path / "kaggle" / "ILSVRC" / "Data" / "CLS-LOC"
    data.parent.mkdir(parents=True)
    shutil.copytree(image_root / "train", data / "train")
    rows = ["ImageId,PredictionString"]
    for i, path in enumerate(sorted((image_root / "val").rglob("*.JPEG"))):
        name = f"ILSVRC2012_val_{i:08d}"
        (data / "val").mkdir(exist_ok=True)
        (data / "test").mkdir(exist_ok=True)
        shutil.copy(path, data / "val" / f"{name}.JPEG")
        shutil.copy(path, data / "test" / f"ILSVRC2012_test_{i:08d}.JPEG")
        rows.append(f"{name},{path.parent.name} 85 1 499 272 {path.parent.name} 1 2 3 4")
    (tmp_path / "kaggle" / "LOC_val_solution.csv").write_text("\n".join([rows[0], *rows[:0:-1], ""]))
    assert pack(data, tmp_path / "pack") == 0
    val = PackIndex(tmp_path / "pack" / "val")
    assert val.classes == ("cat", "dog", "emu")
    assert [val.name(i) for i in range(9)] == [
        f"{name}/ILSVRC2012_val_{i:08d}.JPEG" for i, name in enumerate(["cat"] * 3 + ["dog"] * 3 + ["emu"] * 3)
    ]


def test_images_like_imagenets_tell_how_long_it_would_take(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "root" / "cat").mkdir(parents=True)
    noise = np.random.default_rng(0).integers(0, 256, (300, 400, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "root" / "cat" / "1.JPEG", quality=95)
    assert prepare(["pack", str(tmp_path / "root"), str(tmp_path / "pack"), *ONE]) == 0
    assert "1,281,167" in capsys.readouterr().out


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
    assert f"{out}: " in error
    assert f" {os.fsdecode(name)!r} " in error
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
    assert re.search(r"\b3 classes; .*\b1,000\b", told)
    assert re.search(r"\b4 images; .*\b50,000\b", told)
    assert f"{out / 'train'}: 9 images" in told
    assert re.search(r"\b9 images; .*\b1,281,167\b", told)
    assert PackIndex(out / "val").classes == PackIndex(out / "train").classes == ("n00", "n01", "n02")
    assert prepare(["check", str(out), *ONE]) == 0
    for options, facts in [
        ([], ("--train-tar", "--val-tar")),
        (["--val-tar", str(val)], ("error: --val-tar ", "--devkit", "--val-wnids")),
        (["--train-tar", str(train), "--val-wnids", str(wnids)], ("error: --val-wnids ", "--val-tar")),
        (["--train-tar", str(val)], (f"--train-tar: {val} ", "WNID.tar")),
        (["--train-tar", str(tmp_path / "no.tar")], (f" {tmp_path / 'no.tar'} ", "No such file")),
    ]:
        error = refuses(prepare, "imagenet", *options, "--out", str(tmp_path / "no"), *ONE)
        assert all(fact in error for fact in facts), error
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
    assert "bad: dog/large.JPEG: " in capsys.readouterr().out
    assert pack(image_root / "val", tmp_path / "pack") == 0, "it is kept as it is"
    assert prepare(["check", str(tmp_path / "pack"), *ONE]) == 1


def test_check_of_a_pack_beside_a_folder(image_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert pack(image_root / "train", tmp_path / "root" / "train") == 0
    shutil.copytree(image_root / "val", tmp_path / "root" / "val")
    assert prepare(["check", str(tmp_path / "root"), *ONE]) == 0
    assert capsys.readouterr().out.count("none bad") == 2
    (tmp_path / "root" / "val" / "dog" / "0.JPEG").write_bytes(b"")
    assert prepare(["check", str(tmp_path / "root"), *ONE]) == 1
    assert "bad: dog/0.JPEG: " in capsys.readouterr().out


def test_a_damaged_record_is_not_unpacked(image_root: Path, tmp_path: Path, refuses: Refuses) -> None:
    assert pack(image_root / "val", tmp_path / "pack", "--tier", "raw") == 0
    shard = tmp_path / "pack" / shard_name(0)
    data = bytearray(shard.read_bytes())
    data[-5] ^= 1
    shard.write_bytes(data)
    told = refuses(prepare, "unpack", str(tmp_path / "pack"), str(tmp_path / "again"))
    assert f" {tmp_path / 'pack'}: emu/2.JPEG " in told
    assert "written" in told


def test_packing_again_what_holds_unreadable_images_says_so_again(
    image_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (image_root / "val" / "dog" / "0.JPEG").write_bytes(b"")
    assert pack(image_root / "val", tmp_path / "pack") == 1
    capsys.readouterr()
    assert pack(image_root / "val", tmp_path / "pack") == 1
    assert "unreadable: 1 " in capsys.readouterr().out
    assert prepare(["check", str(tmp_path / "pack"), *ONE]) == 1
    assert "bad: dog/0.JPEG: " in capsys.readouterr().out


def test_tables_that_are_none(image_root: Path, tmp_path: Path, refuses: Refuses) -> None:
    table = tmp_path / "table.csv"
    for content, told in (
        (f"{'x' * 200_000},dog\n", (f" {table} ", "path,label")),
        (f"{'x' * 300},dog\n", (f" {table}, line 1: ", f" {tmp_path}/xxx")),
    ):
        table.write_text(content)
        error = refuses(prepare, "pack", str(table), str(tmp_path / "out"), *ONE)
        assert all(fact in error for fact in told), error
