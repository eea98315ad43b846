"""Names that hold anything a file system lets them: what is shown of them is text in one line, and never an order to a
terminal."""

from __future__ import annotations

import os
import re
import tarfile
from pathlib import Path

import pytest
import torch

from helpers.archives import tar_of
from helpers.commands import evaluate, export, info, prepare, train
from helpers.images import save_image
from helpers.runs import SMALL, events
from resnext_train.errors import InputError, printable

NAMES = {
    "a\nresnext prepare: error: no": r"a\nresnext prepare: error: no",
    "b\r\x1b[2J\x1b]0;title\x07": r"b\r\x1b[2J\x1b]0;title\x07",
    os.fsdecode(b"c\xff\xfe"): r"c\udcff\udcfe",
    "d\u202egnp": r"d\u202egnp",
    "e\x85\u2028f": r"e\x85\u2028f",
    "é 日本 ñ": "é 日本 ñ",
}
"""Names of classes and files, and what is to be shown of them."""


def shown(capsys: pytest.CaptureFixture[str]) -> str:
    """What a command has said, which must be lines of text."""
    said = capsys.readouterr()
    for text in (said.out, said.err):
        assert text.replace("\n", "").isprintable()
        assert not any(line.startswith("resnext prepare: error: no") for line in text.split("\n")), text
    return said.out + said.err


@pytest.fixture
def strange_root(tmp_path: Path) -> Path:
    """A data root of strange classes and strange files, of which one is no image."""
    root = tmp_path / "root\x1b[31m\n"
    for split, images in (("train", 6), ("val", 2)):
        for c, name in enumerate(NAMES):
            for i in range(images):
                save_image(root / split / name / f"{i}{name}.JPEG", (40, 40), seed=100 * c + i)
        for name in NAMES:
            (root / split / name / f"bad{name}.JPEG").write_bytes(b"no image")
    return root


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        *NAMES.items(),
        ("a b\\n~ '\"", "a b\\n~ '\""),
        ("\0\t\x7f\xa0\u200b\ud800", r"\x00\t\x7f\xa0\u200b\ud800"),
        ("\U000e0041", r"\U000e0041"),
        ("", ""),
    ],
)
def test_printable(text: str, escaped: str) -> None:
    assert printable(text) == escaped
    assert printable(escaped) == escaped, "what is escaped once stays as it is"
    assert str(InputError(f"{text}!")) == f"{escaped}!"


def test_prepare(strange_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "pack\x1b\n"
    for arguments in (["pack", str(strange_root), str(out)], ["check", str(strange_root)], ["check", str(out)]):
        assert prepare([*arguments, "--workers", "1"]) == 1
        told = shown(capsys)
        for text in NAMES.values():
            assert f": {text}/bad{text}.JPEG: " in told
        assert r"\x1b\n" in told or r"\x1b[31m\n" in told
    again = tmp_path / "again\x1b\n"
    assert prepare(["unpack", str(out), str(again)]) == 0
    assert r"again\x1b\n" in shown(capsys)
    files = [{p.relative_to(root) for p in root.rglob("*")} for root in (again, strange_root)]
    assert files[0] == files[1]
    assert prepare(["unpack", str(out), str(again)]) == 2
    assert r"again\x1b\n " in shown(capsys)


def test_archives(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    inner = {}
    for name in NAMES:
        image = save_image(tmp_path / "image.JPEG").read_bytes()
        tar_of({f"1{name}.JPEG": image, f"2{name}.JPEG": b"no image"}, tmp_path / "inner.tar", tarfile.PAX_FORMAT)
        inner[f"{name}.tar"] = (tmp_path / "inner.tar").read_bytes()
    archive = tar_of(inner, tmp_path / "train\x1b\n.tar", tarfile.PAX_FORMAT)
    arguments = ["imagenet", "--train-tar", str(archive), "--workers", "1"]
    assert prepare([*arguments, "--out", str(tmp_path / "pack")]) == 1
    told = shown(capsys)
    for text in NAMES.values():
        assert f"unreadable: {text}/2{text}.JPEG" in told
    for name, text in NAMES.items():
        tar_of({f"{name}.txt": b"?"}, archive, tarfile.PAX_FORMAT)
        assert prepare([*arguments, "--out", str(tmp_path / "other")]) == 2
        assert f" {text}.txt" in shown(capsys)


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["error", "skip"])
@pytest.mark.parametrize("workers", [0, 1])
def test_training_and_evaluation(
    policy: str, workers: int, strange_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    small = [o for o in SMALL if not o.startswith("data.")]
    data = ["data.source=folder", f"data.root={strange_root}", f"data.workers={workers}", f"data.on_bad_image={policy}"]
    code = train(["--config", "smoke.yaml", "--out", str(out), *small, "train.epochs=1", *data])
    told = shown(capsys)
    files = [f"{t}/bad{t}.JPEG " for t in NAMES.values()]
    if policy == "error":
        assert code == 2
        assert any(file in told for file in files)
        return
    assert code == 0
    assert all(file in told for file in files)
    assert all(event["text"].isprintable() for event in events(out, "unreadable"))
    checkpoint = out / "checkpoints" / "last.pt"
    assert set(torch.load(checkpoint, weights_only=True)["classes"]) == set(NAMES)
    assert evaluate(["--ckpt", str(checkpoint), "--json", str(tmp_path / "x.json")]) == 0
    told = shown(capsys)
    assert all(file in told for file in files)
    strange = tmp_path / "x\x1b\n.pt"
    strange.write_bytes(checkpoint.read_bytes())
    assert evaluate(["--ckpt", str(strange)]) == 0
    assert re.search(r"^network .*/x\\x1b\\n\.pt$", shown(capsys), re.MULTILINE)
    for ending in (".safetensors", ".pth"):
        assert export(["--ckpt", str(strange), "--out", f"{tmp_path}/y\x1b\n{ending}"]) == 0
        assert rf"y\x1b\n{ending}: " in shown(capsys)


def test_classes_that_differ(strange_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in NAMES:
        (strange_root / "val" / name).rename(strange_root / "val" / f"z{name}")
    assert train(["--config", "resnet18", f"data.root={strange_root}", "--out", str(tmp_path / "run")]) == 2
    told = shown(capsys)
    assert told.count("\n") == 1
    assert r": a\nresnext prepare: error: no, b\r\x1b[2J\x1b]0;title\x07, " in told
    (tmp_path / "names.txt").write_text("cat\x1b[2J\n")
    assert train(["--config", "resnet18", f"data.root={strange_root}", f"data.only_classes={tmp_path}/names.txt"]) == 2
    told = shown(capsys)
    assert "data.only_classes" in told
    assert r": cat\x1b[2J" in told


def test_recipes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "r\x1b[2J\n.yaml"
    path.write_text(
        "# ImageNet-1K \u202e\n#\n# Reproduces: x\u202ey\n#\n# Expected: z\u202e\nmodel: {arch: resnet18}\n"
    )
    assert info(["--config", str(path)]) == 0
    assert r"r\x1b[2J\n.yaml: x\u202ey z\u202e" in shown(capsys)
    path.write_text('model: {arch: resnet18}\n"mo\\e[2J\\ndel": {arch: resnet18}\n')
    for command in (info, train):
        assert command(["--config", str(path)]) == 2
        told = shown(capsys)
        assert told.count("\n") == 1
        assert r"r\x1b[2J\n.yaml, line 2: " in told
        assert r" mo\x1b[2J\ndel" in told


def test_the_folder_that_cannot_be_listed_in_the_cache(
    strange_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from resnext_train.data.sources.image_folder import ImageFolder

    (tmp_path / "cache").write_text("a file, where a folder should be")
    for folder in (strange_root / "val", *(strange_root / "val").iterdir()):
        os.utime(folder, (0, 0))
    with pytest.warns(UserWarning, match=r"\\x1b\[31m\\n/val") as told:
        ImageFolder(strange_root / "val")
    assert str(told[0].message).isprintable()
