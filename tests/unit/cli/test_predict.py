"""The command that classifies images: its predictions are those of `resnext eval`, and no image ends it."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from helpers.commands import Refuses, evaluate, predict
from helpers.images import save_image

CLASSES = [f"class_{c:04d}" for c in range(4)]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A data root with 25 images of the classes of `whole`, in a folder val/."""
    for i in range(25):
        save_image(tmp_path / "data" / "val" / CLASSES[i % 4] / f"{i}.JPEG", (40 + i, 60 - i), i)
    return tmp_path / "data"


def rows_of(file: Path) -> list[dict[str, str]]:
    with file.open(newline="", encoding="utf-8", errors="surrogateescape") as stream:
        return list(csv.DictReader(stream))


@pytest.mark.parametrize(("protocol", "workers"), [("center", 0), ("ten_crop", 2)])
def test_evaluation_follows_from_the_predictions(
    protocol: str, workers: int, whole: Path, root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--ckpt", str(whole), "--protocol", protocol, f"data.workers={workers}"]
    assert evaluate([*options, "--data", str(root), "--json", str(tmp_path / "e.json")]) == 0
    expected = json.loads((tmp_path / "e.json").read_text())
    out, objects = tmp_path / "p.csv", tmp_path / "p.json"
    assert predict([*options, str(root / "val"), "--csv", str(out), "--json", str(objects)]) == 0
    assert capsys.readouterr().out.count("25 images") >= 1
    rows = rows_of(out)
    assert [row["path"] for row in rows] == sorted(map(str, (root / "val").rglob("*.JPEG")))
    labels = [Path(row["path"]).parent.name for row in rows]
    named = [{row[f"class{k}"]: float(row[f"score{k}"]) for k in range(1, 5)} for row in rows]
    assert sum(row["class1"] == label for row, label in zip(rows, labels, strict=True)) == expected["top1_correct"]
    losses = [-math.log(scores[label]) for scores, label in zip(named, labels, strict=True)]
    assert sum(losses) / len(losses) == pytest.approx(expected["loss"], rel=1e-6)
    assert all(sum(scores.values()) == pytest.approx(1) for scores in named)
    assert [list(row) for row in rows[:1]] == [
        ["path", *(f"class{k}" for k in range(1, 5)), *(f"score{k}" for k in range(1, 5)), "error"]
    ]
    for row, item, scores in zip(rows, json.loads(objects.read_text()), named, strict=True):
        assert item == {"path": row["path"], "classes": list(scores), "scores": list(scores.values()), "error": None}


def test_bad_images_are_named_and_counted_and_end_nothing(
    whole: Path, root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """More of them in a row than evaluation would skip, and a whole batch of them."""
    bad = [tmp_path / f"{i}.jpg" for i in range(20)]
    for path in bad:
        path.write_bytes(b"" if path == bad[0] else b"no image")
    good = sorted(map(str, (root / "val").rglob("*.JPEG")))
    words = [good[0], *map(str, bad), good[1], str(tmp_path / "none.jpg"), good[0]]
    for workers in (0, 1):
        out = tmp_path / "p.csv"
        options = ["--ckpt", str(whole), "--top", "2", f"data.workers={workers}", "eval.batch_size=4"]
        assert predict([*options, *words, "--csv", str(out), "--json", str(tmp_path / "p.json")]) == 1
        said = capsys.readouterr()
        assert all(f"{path} cannot be read: " in said.err for path in (*bad, tmp_path / "none.jpg"))
        assert "21 of 24" in said.out
        rows = rows_of(out)
        assert [row["path"] for row in rows] == words
        assert [bool(row["error"]) for row in rows] == [bool(word not in good) for word in words]
        assert [rows[1]["error"], rows[22]["error"]] == ["the file is empty", "No such file or directory"]
        assert {rows[5][key] for key in ("class1", "class2", "score1", "score2")} == {""}
        assert [rows[0][key] for key in ("class1", "class2")] == [rows[23][key] for key in ("class1", "class2")]
        assert float(rows[0]["score1"]) == pytest.approx(float(rows[23]["score1"]), rel=1e-5)
        items = json.loads((tmp_path / "p.json").read_text())
        assert [item["error"] or "" for item in items] == [row["error"] for row in rows]


def test_odd_names_from_stdin(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [os.fsdecode(name) for name in (b"a\nb.jpg", b"c\xff\r.jpg", b'd,"e".jpg', "é 日本.jpg".encode())]
    paths = [save_image(tmp_path / name, (50, 44), i, format="JPEG") for i, name in enumerate(names)]
    stream = io.TextIOWrapper(io.BytesIO(b"\0".join(map(os.fsencode, paths))))
    monkeypatch.setattr(sys, "stdin", stream)
    out, objects = tmp_path / "p.csv", tmp_path / "p.json"
    assert predict(["--ckpt", str(whole), "-", "--csv", str(out), "--json", str(objects)]) == 0
    assert [item["path"] for item in json.loads(objects.read_text())] == list(map(str, paths))
    escaped = [str(path).replace("\udcff", r"\udcff") for path in paths]
    assert [row["path"] for row in rows_of(out)] == escaped, "the file is UTF-8"


def test_a_list_of_paths_may_have_the_line_ends_of_windows(
    whole: Path, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [str(root / "val" / "class_0000" / f"{i}.JPEG") for i in (0, 4)]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("\r\n".join(paths).encode())))
    assert predict(["--ckpt", str(whole), "-", "--csv", str(tmp_path / "p.csv")]) == 0
    assert [row["path"] for row in rows_of(tmp_path / "p.csv")] == paths


def test_a_block_of_text_for_each_image(
    whole: Path, root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--ckpt", str(whole), str(root / "val" / "class_0000" / "0.JPEG"), "no\x1bfile", "data.workers=0"]
    assert predict([*options, "--top", "2"]) == 1
    said = capsys.readouterr()
    path, *lines = said.out.splitlines()
    assert path == options[2]
    assert [len(line.split(" %  ")) for line in lines] == [2, 2]
    assert r"no\x1bfile cannot be read" in said.err
    assert predict([*options[:3], "--top", "1", f"data.titles={titled(tmp_path)}"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith(f"{options[2]}  ")
    name, _, title = line.split(" %  ")[1].partition("  ")
    assert title == f"title {CLASSES.index(name)}"


def titled(folder: Path) -> Path:
    """A file of titles: "title 0, more" and so on."""
    lines = [f"{name}\ttitle {i}, more\n" for i, name in enumerate(CLASSES)]
    (folder / "titles.txt").write_text("".join(lines))
    return folder / "titles.txt"


def test_titles_in_files(whole: Path, root: Path, tmp_path: Path) -> None:
    titles = tuple(f"title {i}, more" for i in range(4))
    out, objects = tmp_path / "p.csv", tmp_path / "p.json"
    words = [str(root / "val" / "class_0001"), str(tmp_path / "none.jpg")]
    files = ["--csv", str(out), "--json", str(objects)]
    assert predict(["--ckpt", str(whole), *words, "--top", "3", *files, f"data.titles={titled(tmp_path)}"]) == 1
    rows, items = rows_of(out), json.loads(objects.read_text())
    for row, item in zip(rows[:-1], items[:-1], strict=True):
        expected = [titles[CLASSES.index(row[f"class{k}"])] for k in (1, 2, 3)]
        assert [row[f"title{k}"] for k in (1, 2, 3)] == item["titles"] == expected
    assert None not in rows[-1], "a row without a prediction has no more fields than the others"
    assert rows[-1]["error"]


def test_csv_on_stdout_is_alone_there(whole: Path, root: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert predict(["--ckpt", str(whole), str(root), "no.jpg", "--csv", "/dev/stdout"]) == 1
    said = capfd.readouterr()
    lines = list(csv.reader(io.StringIO(said.out)))
    assert len(lines) == 27
    assert {len(line) for line in lines} == {10}
    assert "1 of 26" in said.err


def test_what_cannot_be_written_leaves_the_old_file(
    whole: Path, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refuses: Refuses
) -> None:
    out = tmp_path / "out" / "p.csv"
    out.parent.mkdir()
    out.write_text("old")

    def fails(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fails)
    arguments = ["--ckpt", str(whole), str(root / "val" / "class_0000"), "data.workers=0", "--csv", str(out)]
    assert str(out) in refuses(predict, *arguments)
    assert out.read_text() == "old"
    assert list(out.parent.iterdir()) == [out]


def test_a_full_device_is_one_sentence(whole: Path, root: Path, tmp_path: Path, refuses: Refuses) -> None:
    arguments = ["--ckpt", str(whole), str(root), "data.workers=0"]
    assert "/dev/full" in refuses(predict, *arguments, "--csv", "/dev/full")
    many = ["eval.batch_size=1", *[str(root)] * 8]  # more than a buffer holds, so that a row fails, and not the end
    assert "/dev/full" in refuses(predict, *arguments, *many, "--json", "/dev/full")


def test_an_interrupted_command_leaves_the_old_file(
    whole: Path, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "p.json"
    out.write_text("old")
    from resnext_train.inference.predict_images import PredictionJob

    def interrupted(*arguments: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(PredictionJob, "_rows_of", interrupted)
    assert predict(["--ckpt", str(whole), str(root), "data.workers=0", "--json", str(out)]) == 130
    assert out.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir() if p.is_file()] == ["p.json"]


def test_refusals(whole: Path, root: Path, tmp_path: Path, refuses: Refuses, monkeypatch: pytest.MonkeyPatch) -> None:
    image = str(root / "val" / "class_0000" / "0.JPEG")
    for arguments, told in (
        (["--ckpt", str(whole)], "folders"),
        ([image], "--ckpt"),
        (["--ckpt", str(whole), image, "--top", "0"], "--top 0"),
        (["--ckpt", str(whole), str(tmp_path / "*.jpg")], "*.jpg"),
        (["--ckpt", str(whole), image, "eval.crops=3"], "eval.crop"),
        (["--ckpt", str(whole), image, "model.width=2"], "model.width=2"),
        (["--ckpt", str(whole), image, "--classes", str(tmp_path)], "--classes"),
        (["--ckpt", str(whole), image, "--csv", str(tmp_path)], f"--csv: {tmp_path} "),
        (["--ckpt", str(whole), image, "--csv", str(tmp_path / "no" / "x")], "--csv: "),
        (["--ckpt", str(whole), image, "--csv", str(tmp_path / "x"), "--json", str(tmp_path / "x")], "--json"),
    ):
        assert told in refuses(predict, *arguments)
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "29500"}.items():
        monkeypatch.setenv(name, value)
    assert "one process" in refuses(predict, "--ckpt", str(whole), image)
