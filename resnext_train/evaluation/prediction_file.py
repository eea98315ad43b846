"""The file of `--predictions`: a line for each image, written as results come. Imports no torch."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from pathlib import PurePath
from types import TracebackType
from typing import IO, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from resnext_train.errors import InputError, MissingLibraryError
from resnext_train.evaluation.image_results import ImageResults
from resnext_train.run_dir.result_file import csv_lines, is_stream, open_result, refusals_explained, text_in_utf8

_ROWS = 10_000
"""Rows of a row group in Parquet: what is in memory at a time, some 3 MB."""


class PredictionFile:
    r"""A CSV or Parquet file of all predictions. A context manager: the file has its name at the end, if all went well.

    Columns: `path` of the image; `label`, the correct class, or all of them joined by ";"; `rank` of the label among
    all classes, from 1 (it is predicted; of several, the best); `loss`, the negative log-likelihood of the label in
    nats; `class1` to `class5`, the best classes, and `score1` to `score5`, their probabilities. There are fewer of both
    with fewer classes. Numbers are those of float32, and in CSV have the digits that give the same float32 again. Text
    is UTF-8; bytes of a path that are no text are written as \udcXX.

    Memory is constant. A pipe or a device such as /dev/stdout gets CSV at once.
    """

    def __init__(
        self,
        file: str,
        classes: Sequence[str],
        name: Callable[[int], str],
        truth: NDArray[np.int64] | None = None,
        option: str = "--predictions",
    ) -> None:
        """Open `file`, which `option` named, for predictions among `classes`.

        `name` returns the path of an image by its number. `truth` has all labels of each image, (images, L), by number
        and filled up with -1; None: each has the one in its results.

        Raises:
            InputError: `file` cannot be written, has another suffix than .csv or .parquet, or pyarrow is not installed
                (MissingLibraryError).
        """
        self._file, self._option = file, option
        self._name, self._truth = name, truth
        self._classes = np.array([text_in_utf8(c) for c in classes], object)
        suffix = ".csv" if is_stream(file) else PurePath(file).suffix.lower()
        if suffix not in (".csv", ".parquet"):
            raise InputError(f"{option}: {file} ends neither with .csv nor with .parquet; name it after its format")
        places = range(1, min(5, len(classes)) + 1)
        columns = ["path", "label", "rank", "loss", *(f"class{i}" for i in places), *(f"score{i}" for i in places)]
        if suffix == ".parquet":
            _check_pyarrow(file, option)
        with refusals_explained(option, file):
            self._target = open_result(file)
            try:
                rows: _Rows = (_CsvRows if suffix == ".csv" else _ParquetRows)(self._target.file, columns)
            except BaseException:
                self._target.discard()
                raise
        self._rows = rows

    def add(self, results: ImageResults) -> None:
        """Write the predictions for the images that follow.

        Raises:
            InputError: they cannot be written, as on a full disk; nothing is left of the file.
        """
        with refusals_explained(self._option, self._file):
            try:
                for start in range(0, len(results.numbers), _ROWS):
                    part = ImageResults._make(column[start : start + _ROWS] for column in results)
                    self._rows.write(self._columns(part))
            except BaseException:
                self.abort()
                raise

    def _columns(self, results: ImageResults) -> list[NDArray[Any]]:
        numbers = results.numbers.tolist()
        best = self._classes[results.classes]
        scores = results.scores.astype(np.float32)
        return [
            np.array([text_in_utf8(self._name(i)) for i in numbers], object),
            self._labels(results),
            (results.ranks + 1).astype(np.int32),
            results.losses.astype(np.float32),
            *(best[:, i] for i in range(best.shape[1])),
            *(scores[:, i] for i in range(scores.shape[1])),
        ]

    def _labels(self, results: ImageResults) -> NDArray[Any]:
        if self._truth is None:
            return self._classes[results.labels]
        rows = self._truth[results.numbers]
        return np.array([";".join(self._classes[row[row >= 0]]) for row in rows], object)

    def close(self) -> None:
        """Complete the file and give it its name.

        Raises:
            InputError: it cannot be written; nothing is left of it, and a file that was there is as it was.
        """
        with refusals_explained(self._option, self._file):
            try:
                self._rows.finish()
                self._target.commit()
            except BaseException:
                self.abort()
                raise

    def abort(self) -> None:
        """Leave nothing of the file; one that was there before stays."""
        self._rows.give_up()
        self._target.discard()

    def __enter__(self) -> PredictionFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()


class _Rows(Protocol):
    """Writes rows, given as columns, in one format."""

    def write(self, columns: list[NDArray[Any]]) -> None: ...

    def finish(self) -> None: ...

    def give_up(self) -> None: ...


class _CsvRows:
    def __init__(self, file: IO[bytes], columns: list[str]) -> None:
        self._file = file
        self._write([columns])

    def write(self, columns: list[NDArray[Any]]) -> None:
        self._write(zip(*map(_texts, columns), strict=True))

    def _write(self, rows: Iterator[tuple[str, ...]] | list[list[str]]) -> None:
        self._file.write(csv_lines(rows).encode())

    def finish(self) -> None:
        self._file.flush()

    def give_up(self) -> None:
        """There is nothing but the file."""


def _texts(column: NDArray[Any]) -> list[str]:
    """Return a column as text. Of a float32 these are the fewest digits that give it again."""
    texts: list[str] = column.astype(str).tolist() if column.dtype == np.float32 else list(map(str, column.tolist()))
    return texts


class _ParquetRows:
    """Collects rows until they are a row group. Not each chunk is one: readers are slow with thousands of them."""

    def __init__(self, file: IO[bytes], columns: list[str]) -> None:
        import pyarrow as pa
        from pyarrow import parquet

        kinds = {"rank": pa.int32(), "loss": pa.float32()}
        kinds |= {column: pa.float32() for column in columns if column.startswith("score")}
        self._schema = pa.schema([(column, kinds.get(column, pa.string())) for column in columns])
        self._sink = _Sink(file)
        self._writer = parquet.ParquetWriter(self._sink, self._schema)
        self._chunks: list[list[NDArray[Any]]] = []
        self._waiting = 0

    def write(self, columns: list[NDArray[Any]]) -> None:
        self._chunks.append(columns)
        self._waiting += len(columns[0])
        while self._waiting >= _ROWS:
            self._write_group()

    def _write_group(self) -> None:
        """Write the next row group, of _ROWS rows or the last ones, whatever chunks they came in."""
        import pyarrow as pa

        columns = [np.concatenate(parts) for parts in zip(*self._chunks, strict=True)]
        self._chunks = [[column[_ROWS:] for column in columns]]
        self._waiting = len(self._chunks[0][0])
        pairs = zip(columns, self._schema.types, strict=True)
        arrays = [pa.array(column[:_ROWS], kind) for column, kind in pairs]
        self._writer.write_table(pa.Table.from_arrays(arrays, schema=self._schema))

    def finish(self) -> None:
        if self._waiting:
            self._write_group()
        self._writer.close()

    def give_up(self) -> None:
        self._sink.given_up = True
        self._writer.close()  # or it would do so when it is collected, and write


class _Sink(io.RawIOBase):
    """A file that takes everything once it is given up, so that its writer can be closed whatever happened to it."""

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__()
        self._file, self.given_up = file, False

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        return len(data) if self.given_up else self._file.write(data)

    def tell(self) -> int:
        return 0 if self.given_up else self._file.tell()


def _check_pyarrow(file: str, option: str) -> None:
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError as error:
        raise MissingLibraryError(
            f"{option}: {file} needs the library pyarrow, which is not installed; pip install "
            "'resnext-train[parquet]', or write a .csv file"
        ) from error
