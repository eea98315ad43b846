"""What rank 0 makes of the results of an evaluation's images: files, tables, measures, a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resnext_train.data.build_loaders import Evaluation
from resnext_train.data.class_titles import short_titles
from resnext_train.data.transforms.eval_views import read_whole
from resnext_train.errors import InputError, LocalInputError
from resnext_train.evaluation.calibration import Calibration
from resnext_train.evaluation.class_table import ClassTable
from resnext_train.evaluation.image_results import ImageResults, ResultSink
from resnext_train.evaluation.mistake_sheet import draw_sheet
from resnext_train.evaluation.mistakes import ConfidentMistakes
from resnext_train.evaluation.prediction_file import PredictionFile
from resnext_train.evaluation.result_report import report_lines, report_values, table_lines
from resnext_train.regular_file import user_path


class EvaluationOutputs:
    """A `ResultSink`: tables and measures always, files where they are asked for. On rank 0 alone.

    Files of predictions have their names once `close` was called; until then `abort` leaves nothing of them.
    """

    def __init__(
        self, evaluation: Evaluation, titles: Sequence[str] | None, predictions: Sequence[str], out: str | None
    ) -> None:
        """Open the files `predictions`; make the folder `out` for all there is, if it is given.

        Raises:
            InputError: a file or the folder cannot be written.
        """
        self._evaluation = evaluation
        self._titles = short_titles(evaluation.classes, titles)
        self._out = None if out is None else _folder(out)
        self._table = ClassTable(evaluation.classes, titles)
        self._calibration = Calibration()
        self._mistakes = ConfidentMistakes()
        self._files: list[PredictionFile] = []
        files = [*((file, "--predictions") for file in predictions)]
        if self._out is not None:
            files.append((str(self._out / "predictions.csv"), "--out"))
        try:
            for file, option in files:
                images, truth = evaluation.images, evaluation.labels
                self._files.append(PredictionFile(file, evaluation.classes, images.name, truth, option))
        except InputError:
            self.abort()
            raise

    def add(self, results: ImageResults) -> None:
        """Take the results of the images that follow.

        Raises:
            LocalInputError: a file cannot be written; other ranks do not know of it.
        """
        try:
            for sink in self._sinks():
                sink.add(results)
        except LocalInputError:
            raise
        except InputError as error:
            raise LocalInputError(str(error)) from error

    def _sinks(self) -> list[ResultSink]:
        return [self._table, self._calibration, self._mistakes, *self._files]

    def close(self, header: Sequence[str]) -> None:
        """Give all files their names; `header` stands above the picture of mistakes.

        Raises:
            InputError: a file cannot be written.
        """
        if self._out is not None:  # before the predictions have their name: what fails then leaves none of both
            mistakes, name = self._mistakes.mistakes(), self._evaluation.images.name
            draw_sheet(str(self._out / "mistakes.png"), mistakes, self._picture, name, self._titles, header, "--out")
            self._table.write_classes(self._out / "classes.csv", "--out")
            self._table.write_confusion(self._out / "confusion.csv", "--out")
        for file in self._files:
            file.close()

    def abort(self) -> None:
        """Leave nothing of the files of predictions."""
        for file in self._files:
            file.abort()

    def _picture(self, number: int) -> NDArray[np.uint8]:
        pixels: NDArray[np.uint8] = read_whole(self._evaluation.images.image(number)).permute(1, 2, 0).numpy()
        return pixels

    def values(self) -> dict[str, Any]:
        """Return the result as plain values: accuracies with intervals, calibration, all classes and confusions."""
        table = self._table
        return {
            **report_values(table, self._calibration),
            "classes": [table.row_values(row) for row in table.rows()],
            "confusion": [list(cell) for cell in zip(*(column.tolist() for column in table.cells()), strict=True)],
        }

    def lines(self) -> tuple[list[str], list[str]]:
        """Return accuracies and measures for people, and tables."""
        return report_lines(self._table, self._calibration), table_lines(self._table)


def _folder(out: str) -> Path:
    """Return the folder of --out, which is made if it is not there."""
    path = user_path(out)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--out: the folder {out} cannot be made: {error.strerror}") from error
    return path
