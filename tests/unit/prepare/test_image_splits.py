"""Which images are found, and in which order."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers.images import save_image
from resnext_train.data.sources.image_folder import ImageFolder
from resnext_train.errors import InputError
from resnext_train.prepare.image_splits import Item, Split, check_target, parts_of, shard_size, splits_of


def items(split: Split) -> list[Item]:
    return [item for part in parts_of(split) for item in part.items()]


def test_folders_and_data_roots(image_root: Path) -> None:
    splits = splits_of(image_root)
    assert list(splits) == ["train", "val"]
    listed = items(splits["train"])
    images = ImageFolder(image_root / "train")
    assert [item.path for item in listed] == [images.name(i) for i in range(24)]
    assert [item.label for item in listed] == images.labels.tolist()
    assert listed[0].name == "cat/0.JPEG"
    assert listed[0].read() == (image_root / "train" / "cat" / "0.JPEG").read_bytes()
    assert list(splits_of(image_root / "val")) == [""]
    assert items(splits_of(image_root / "val")[""]) == items(splits["val"])


def test_one_split_alone(image_root: Path, tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    (image_root / "val").rename(tmp_path / "root" / "val")
    assert list(splits_of(tmp_path / "root")) == ["val"]


def test_shards() -> None:
    assert [shard_size(n) for n in (1, 1000, 1025, 50_000, 1_281_167)] == [64, 64, 65, 3125, 8192]


def test_tiny_imagenet(tmp_path: Path) -> None:
    save_image(tmp_path / "train" / "n02" / "images" / "n02_0.JPEG")
    save_image(tmp_path / "train" / "n01" / "images" / "n01_0.JPEG")
    lines = []
    for i in range(12):
        save_image(tmp_path / "val" / "images" / f"val_{i}.JPEG", seed=i)
        lines.append(f"val_{i}.JPEG\tn0{2 - i % 2}\t0\t0\t62\t57\n")
    (tmp_path / "val" / "val_annotations.txt").write_text("".join(lines))
    splits = splits_of(tmp_path)
    assert [item.name for item in items(splits["train"])] == ["n01/images/n01_0.JPEG", "n02/images/n02_0.JPEG"]
    val = items(splits["val"])
    assert splits["val"].classes == ("n01", "n02")
    assert [item.name for item in val[:3]] == ["n01/val_1.JPEG", "n01/val_11.JPEG", "n01/val_3.JPEG"]
    assert [item.label for item in val] == [0] * 6 + [1] * 6
    assert val[0].path == str(tmp_path / "val" / "images" / "val_1.JPEG")
    (tmp_path / "val" / "images" / "val_1.JPEG").unlink()
    with pytest.raises(InputError, match=r"/val_1\.JPEG .*No such file"):
        splits_of(tmp_path)


@pytest.mark.parametrize("line", ["val_0.JPEG", "../x.JPEG\tn01", "/etc/x.JPEG\tn01", "a.JPEG\t../n01", "a.JPEG\t"])
def test_tiny_annotations_that_make_no_sense(line: str, tmp_path: Path) -> None:
    (tmp_path / "val_annotations.txt").write_text(f"{line}\n")
    with pytest.raises(InputError, match=r"val_annotations\.txt"):
        splits_of(tmp_path)


@pytest.mark.parametrize("header", ["", "path,label\n", "\ufefffile,class\r\n"])
def test_a_table(header: str, tmp_path: Path) -> None:
    outside = save_image(tmp_path / "elsewhere" / "x.jpg")
    for name in ("b.jpg", "dog/a.jpg", "more/é c.jpg"):
        save_image(tmp_path / "t" / name)
    rows = f'b.jpg,dog\ndog/a.jpg,dog\n"more/é c.jpg",cat\n{outside},cat\n../elsewhere/x.jpg,ant\n\n'
    (tmp_path / "t" / "list.csv").write_text(header + rows)
    split = splits_of(tmp_path / "t" / "list.csv")[""]
    assert split.classes == ("ant", "cat", "dog")
    assert [(item.name, item.label) for item in items(split)] == [
        ("ant/x.jpg", 0),
        ("cat/more/é c.jpg", 1),
        ("cat/x.jpg", 1),
        ("dog/a.jpg", 2),
        ("dog/b.jpg", 2),
    ]
    assert all(item.read() for item in items(split))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "no image$"),
        ("path,label\n", "no image$"),
        ("a.jpg\n", "line 1: .*path,label.* 1 "),
        ("a.jpg,cat,1\n", "line 1: .*path,label.* 3 "),
        ("a.jpg,cat\nb.jpg,cat\n", "line 2: .*/b.jpg "),
        ("a.jpg,cat\na.jpg,cat\n", " two .* cat/a.jpg;"),
        ("a.jpg,../cat\n", r"list\.csv: '\.\./cat' "),
        ("a.jpg,..\n", r"list\.csv: '\.\.' "),
        ("a.jpg,.cat\n", r"list\.csv: '\.cat' "),
        ("a.jpg,\n", r"list\.csv: '' "),
        (b"\xff\xfe\n", "UTF-8"),
    ],
)
def test_a_table_that_makes_no_sense(text: str | bytes, sentence: str, tmp_path: Path) -> None:
    save_image(tmp_path / "a.jpg")
    (tmp_path / "list.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError, match=sentence):
        splits_of(tmp_path / "list.csv")


def test_the_fingerprint_follows_the_files(image_root: Path) -> None:
    before = splits_of(image_root / "val")[""].fingerprint
    assert splits_of(image_root / "val")[""].fingerprint == before
    save_image(image_root / "val" / "cat" / "0.JPEG", seed=99)
    assert splits_of(image_root / "val")[""].fingerprint != before


def test_nothing_is_written_into_the_images(image_root: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(image_root)
    for target in (image_root, image_root / "pack", tmp_path / "link" / "pack", tmp_path / "x" / ".." / "images"):
        with pytest.raises(InputError, match=rf"^\S*/(images|pack) .* {image_root}, "):
            check_target(image_root, target)
    check_target(image_root, tmp_path / "images-pack")


def test_a_file_that_vanishes_or_shrinks_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"/gone\.jpg .*No such file"):
        Item("a", 0, str(tmp_path / "gone.jpg")).read()
    (tmp_path / "short.tar").write_bytes(b"123")
    with pytest.raises(InputError, match=r"/short\.tar .*cut short"):
        Item("a", 0, str(tmp_path / "short.tar"), 1, 3).read()
