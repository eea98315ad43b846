"""All figures of a report, and their files."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from resnext_train.errors import InputError
from resnext_train.report.page.canvas import Plot
from resnext_train.report.page.class_plots import class_plot, confusion_plot
from resnext_train.report.page.class_results import read_classes, read_confusion
from resnext_train.report.page.curve_plots import STEP_PLOTS, RunsDrawn, error_plot, skipped_plot, step_plot
from resnext_train.report.page.mistakes_picture import Picture, read_mistakes
from resnext_train.report.page.run_curves import by_accuracy
from resnext_train.report.run_values import RunValues

ALL_DETAILED, BEST_DETAILED = 12, 4
"""Up to so many runs are shown class by class; of more, the so many most accurate."""


@dataclass(frozen=True)
class RunDetails:
    """What is shown of one run alone: its classes and mistakes."""

    number: int
    name: str
    plots: tuple[Plot, ...]
    mistakes: Picture | None
    problems: tuple[str, ...]
    """What could not be read, a sentence each."""


def curve_plots(runs: RunsDrawn) -> list[Plot]:
    """Return the figures of all runs together; what no run has logged is left out."""
    steps = [step_plot(runs, plot) for plot in STEP_PLOTS]
    return [plot for plot in (error_plot(runs), *steps, skipped_plot(runs)) if plot is not None]


def run_details(runs: Sequence[RunValues], pictures: bool) -> list[RunDetails]:
    """Return what is shown of single runs, by their order; see `ALL_DETAILED`. Runs without evaluation are left out.

    Without `pictures`, no image of the data is shown.
    """
    evaluated = [i for i in by_accuracy(runs) if os.path.isdir(runs[i].record.evaluation)]  # noqa: PTH112
    if len(runs) > ALL_DETAILED:
        evaluated = evaluated[:BEST_DETAILED]
    found = [_details(i, runs[i], len(evaluated) if pictures else 0) for i in sorted(evaluated)]
    return [details for details in found if details.plots or details.mistakes or details.problems]


def _details(number: int, run: RunValues, pictures: int) -> RunDetails:
    """Return what is shown of a run whose mistakes are one of so many pictures in a page; 0: they are not shown."""
    plots: list[Plot | None] = []
    mistakes, problems, folder = None, [], run.record.evaluation
    try:
        classes = read_classes(folder)
        plots.append(class_plot(f"classes-{number + 1}", classes))
        part = read_confusion(folder, classes)
        plots.append(confusion_plot(f"confusion-{number + 1}", part) if part else None)
    except FileNotFoundError:
        pass  # the evaluation made no tables
    except (OSError, ValueError) as error:
        problems.append(f"{folder}: {error}")
    try:
        mistakes = read_mistakes(folder / "mistakes.png", pictures) if pictures else None
    except FileNotFoundError:
        pass
    except (OSError, ValueError) as error:
        problems.append(f"{folder / 'mistakes.png'} cannot be shown: {error}")
    drawn = tuple(plot for plot in plots if plot is not None)
    return RunDetails(number, run.name, drawn, mistakes, tuple(problems))


def write_plots(folder: Path, plots: Iterable[Plot]) -> None:
    """Write each figure as KEY.png and KEY.svg into `folder`, which is made if it is not there.

    Raises:
        InputError: it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for plot in plots:
            # Not by atomic_file: to wait for the disk 60 times takes longer than to draw; a report is soon made again.
            with (folder / f"{plot.key}.png").open("wb") as file:
                plot.write_png(file)
            (folder / f"{plot.key}.svg").write_bytes(plot.svg)
    except OSError as error:
        raise InputError(f"the plots cannot be written to {folder}: {error.strerror or error}") from error
