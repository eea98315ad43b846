"""The file of predictions: what is in it, and that it is whole or not there."""

from __future__ import annotations

import csv
import gc
import math
import os
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.image_results import chunked, results_of
from resnext_train.errors import InputError, MissingLibraryError
from resnext_train.evaluation import prediction_file
from resnext_train.evaluation.image_results import ImageResults
from resnext_train.evaluation.prediction_file import PredictionFile
from resnext_train.run_dir import result_file

CLASSES = ["cat", 'dog "x", y', "émeu", "fox", "gnu", "hen", "yak"]
COLUMNS = ["path", "label", "rank", "loss", *(f"class{i}" for i in range(1, 6)), *(f"score{i}" for i in range(1, 6))]


@pytest.fixture(params=["csv", "parquet"])
def suffix(request: pytest.FixtureRequest) -> str:
    if request.param == "parquet":
        pytest.importorskip("pyarrow")
    return str(request.param)


def path_of(i: int) -> str:
    return f"/data/val/{i}.png"


def write(file: Path, results: ImageResults, sizes: Sequence[int], classes: Sequence[str] = CLASSES) -> None:
    with PredictionFile(str(file), classes, path_of) as sink:
        for chunk in chunked(results, sizes):
            sink.add(chunk)


def read(file: Path) -> list[dict[str, Any]]:
    if file.suffix == ".parquet":
        parquet = pytest.importorskip("pyarrow.parquet")
        rows: list[dict[str, Any]] = parquet.read_table(file).to_pylist()
        return rows
    with file.open(newline="", encoding="utf-8") as text:
        return list(csv.DictReader(text))


def test_a_row_for_each_image_that_could_be_read(suffix: str, tmp_path: Path) -> None:
    results = results_of(50, 7, skipped=(3, 20))
    file = tmp_path / f"predictions.{suffix}"
    write(file, results, [40, 0, 8])
    rows = read(file)
    assert [row["path"] for row in rows] == [path_of(i) for i in range(50) if i not in (3, 20)]
    assert list(rows[0]) == COLUMNS
    for n, row in enumerate(rows):
        assert row["label"] == CLASSES[results.labels[n]]
        assert int(row["rank"]) == results.ranks[n] + 1
        if int(row["rank"]) <= 5:
            assert row[f"class{row['rank']}"] == row["label"]
        assert np.float32(row["loss"]) == np.float32(results.losses[n])
        for i in range(5):
            assert row[f"class{i + 1}"] == CLASSES[results.classes[n, i]]
            assert np.float32(row[f"score{i + 1}"]) == np.float32(results.scores[n, i]), "to the last bit of float32"
    assert list(tmp_path.iterdir()) == [file]


def test_the_bytes_do_not_depend_on_the_chunks(suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prediction_file, "_ROWS", 16)
    results = results_of(48, 7)
    for name, sizes in (("a", [48]), ("b", [16] * 3), ("c", [1, 30, 0, 17])):
        write(tmp_path / f"{name}.{suffix}", results, sizes)
    assert len({file.read_bytes() for file in tmp_path.iterdir()}) == 1


def test_parquet_has_types_and_row_groups_of_a_bounded_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    monkeypatch.setattr(prediction_file, "_ROWS", 16)
    write(tmp_path / "p.parquet", results_of(100, 7), [1, 50, 49])
    file = parquet.ParquetFile(tmp_path / "p.parquet")
    groups = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
    assert groups == [16] * 6 + [4]
    assert [file.schema_arrow.field(c).type for c in COLUMNS] == [
        *(pa.string(), pa.string(), pa.int32(), pa.float32()),
        *[pa.string()] * 5,
        *[pa.float32()] * 5,
    ]


def test_few_classes_have_few_columns(tmp_path: Path) -> None:
    write(tmp_path / "p.csv", results_of(9, 3), [9], CLASSES[:3])
    rows = read(tmp_path / "p.csv")
    assert list(rows[0]) == [c for c in COLUMNS if not c.endswith(("4", "5"))]
    assert {row[f"class{i}"] for row in rows for i in (1, 2, 3)} == set(CLASSES[:3])


def test_all_labels_of_an_image_are_joined(tmp_path: Path) -> None:
    truth = np.array([[1, -1], [0, 2], [2, 1]])
    with PredictionFile(str(tmp_path / "p.csv"), ["a", "b", "c"], path_of, truth) as sink:
        sink.add(results_of(3, 3, skipped=(1,)))
    assert [row["label"] for row in read(tmp_path / "p.csv")] == ["b", "c;b"]


def test_names_that_are_no_text_are_escaped(suffix: str, tmp_path: Path) -> None:
    name = os.fsdecode(b"/d\xc3\xa9/\xff\n.png")
    file = tmp_path / f"p.{suffix}"
    with PredictionFile(str(file), ["a", os.fsdecode(b"b\xfe")], lambda i: name) as sink:
        sink.add(results_of(4, 2))
    rows = read(file)
    assert {row["path"] for row in rows} == {"/dé/\\udcff\n.png"}
    assert {row["class1"] for row in rows} <= {"a", "b\\udcfe"}


def test_line_ends_in_a_name_are_no_line_ends(suffix: str, tmp_path: Path) -> None:
    names = ["a\rb.png", "c\nd.png", "e\r\nf.png", 'g",\r"h.png']
    file = tmp_path / f"predictions.{suffix}"
    with PredictionFile(str(file), ["\rx", "y\n", "z"], names.__getitem__) as sink:
        sink.add(results_of(4, 3))
    rows = read(file)
    assert [row["path"] for row in rows] == names
    assert {row["class1"] for row in rows} <= {"\rx", "y\n", "z"}


def test_a_diverged_network_has_predictions(tmp_path: Path) -> None:
    results = results_of(2, 3)
    results = results._replace(losses=np.array([math.nan, math.inf]), scores=np.full((2, 3), math.nan))
    write(tmp_path / "p.csv", results, [2], CLASSES[:3])
    assert [row["loss"] for row in read(tmp_path / "p.csv")] == ["nan", "inf"]


def test_memory_is_constant(suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prediction_file, "_ROWS", 200)
    chunk = results_of(200, 7)

    def peak(chunks: int) -> int:
        with PredictionFile(str(tmp_path / f"p.{suffix}"), CLASSES, path_of) as sink:
            sink.add(chunk)
            tracemalloc.start()
            for _ in range(chunks):
                sink.add(chunk)
            found = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        return found

    assert peak(30) < 1.3 * peak(3)


@pytest.mark.parametrize("rows", [0, 20])
def test_an_interrupted_evaluation_leaves_the_old_file(suffix: str, rows: int, tmp_path: Path) -> None:
    file = tmp_path / f"p.{suffix}"
    file.write_bytes(b"old")
    sink = PredictionFile(str(file), CLASSES, path_of)
    sink.add(results_of(rows, 7))
    with pytest.raises(KeyboardInterrupt), sink:
        raise KeyboardInterrupt
    assert file.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [file]


class FullDisk:
    """A file that takes so many bytes, then fails as on a full disk."""

    def __init__(self, opened: Any, room: int) -> None:
        self._opened, self._room = opened, room

    def write(self, data: bytes) -> int:
        self._room -= len(data)
        if self._room < 0:
            raise OSError(28, "No space left on device")
        return int(self._opened.write(data))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._opened, name)


def fill_disk(monkeypatch: pytest.MonkeyPatch, room: int) -> None:
    opened = result_file.open_result

    def open_full(name: str) -> Any:
        target = opened(name)
        target.file = FullDisk(target.file, room)  # type: ignore[assignment]
        return target

    monkeypatch.setattr(prediction_file, "open_result", open_full)


@pytest.mark.parametrize("room", [0, 700, 2400])
def test_a_full_disk_leaves_the_old_file(
    suffix: str, room: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever it fills: at the head, within rows or at the end of the file."""
    monkeypatch.setattr(prediction_file, "_ROWS", 5)
    fill_disk(monkeypatch, room)
    file = tmp_path / f"p.{suffix}"
    file.write_bytes(b"old")
    with pytest.raises(InputError, match=rf"^--predictions: {file} cannot be written: No space left on device$"):
        write(file, results_of(20, 7), [10, 10])
    if suffix == "parquet":
        gc.collect()  # a writer that is still open would write
    assert file.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [file]


def test_to_give_up_needs_no_room_on_the_disk(suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parquet's writer ends with the file's metadata, whatever happened."""
    fill_disk(monkeypatch, 150)
    sink = PredictionFile(str(tmp_path / f"p.{suffix}"), CLASSES, path_of)
    with pytest.raises(KeyboardInterrupt), sink:
        raise KeyboardInterrupt
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_written_is_refused_before_the_evaluation(tmp_path: Path) -> None:
    (tmp_path / "folder.csv").mkdir()
    for name in ("missing/p.csv", "folder.csv", "p.txt", "p", "folder.csv/../p.json"):
        with pytest.raises(InputError, match=rf"^--predictions: {tmp_path / name} "):
            PredictionFile(str(tmp_path / name), CLASSES, path_of)
    assert [p.name for p in tmp_path.iterdir()] == ["folder.csv"]


def test_without_pyarrow_parquet_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(MissingLibraryError, match=r"resnext-train\[parquet\]"):
        PredictionFile(str(tmp_path / "p.parquet"), CLASSES, path_of)
    assert not list(tmp_path.iterdir())


def test_a_pipe_gets_csv_as_results_come(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    texts: list[str] = []
    reader = threading.Thread(target=lambda: texts.append(pipe.read_text()))
    reader.start()
    write(pipe, results_of(20, 7), [10, 10])
    reader.join()
    write(tmp_path / "p.csv", results_of(20, 7), [20])
    assert texts == [(tmp_path / "p.csv").read_text()]
    assert pipe.is_fifo()


def test_stdout_that_is_a_file_keeps_what_is_printed(tmp_path: Path) -> None:
    program = (
        "from resnext_train.evaluation.prediction_file import PredictionFile\n"
        "print('before', flush=True)\n"
        "with PredictionFile('/dev/stdout', ['a'], str): pass\n"
        "print('after', flush=True)\n"
        "import sys; sys.exit('torch' in sys.modules)"
    )
    with (tmp_path / "out").open("w") as out:
        subprocess.run([sys.executable, "-c", program], stdout=out, check=True)
    lines = (tmp_path / "out").read_text().splitlines()
    assert lines == ["before", "path,label,rank,loss,class1,score1", "after"]


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "link.csv").symlink_to("target.csv")
    for images in (3, 4):
        write(tmp_path / "link.csv", results_of(images, 7), [images])
        assert len(read(tmp_path / "target.csv")) == images
    assert (tmp_path / "link.csv").is_symlink()


def test_two_evaluations_never_mix_in_one_file(tmp_path: Path) -> None:
    file = tmp_path / "p.csv"
    first = PredictionFile(str(file), CLASSES, path_of)
    first.add(results_of(5, 7))
    second = PredictionFile(str(file), CLASSES, path_of)
    second.add(results_of(3, 7))
    with pytest.raises(InputError, match="another process"):
        first.close()
    second.close()
    assert len(read(file)) == 3
    assert list(tmp_path.iterdir()) == [file]
