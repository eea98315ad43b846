"""Figures of curves against epochs: errors as in Figure 5 of the ResNeXt paper, and what the steps logged."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, NullLocator

from resnext_train.report.page.canvas import (
    AVERAGE,
    TRAIN,
    VALIDATION,
    Legend,
    LineKind,
    Plot,
    epoch_axes,
    figure_of,
    label_runs,
    markers_every,
    plain_text,
    run_id,
)
from resnext_train.report.page.palette import LIGHT, MOST_SERIES, RunStyle, run_styles
from resnext_train.report.page.run_curves import (
    Curve,
    Values,
    by_accuracy,
    error_curves,
    points_for,
    skipped_curve,
    skipped_steps,
    step_curve,
    thinned,
)
from resnext_train.report.run_values import RunValues

_FEW_EPOCHS = 5
"""Runs of so few epochs are shown whole: their first errors are most of what there is."""

_LOG_RATIO = 20
"""Learning rates are shown on a logarithmic axis where the largest is so many times the smallest."""

_LOWEST = 3
"""So many per cent of the learning rates may be below a logarithmic axis."""


@dataclass(frozen=True)
class RunsDrawn:
    """The runs of a report and how each is drawn."""

    runs: tuple[RunValues, ...]
    styles: tuple[RunStyle, ...]
    legend: Legend

    def legend_of(self, kinds: Sequence[LineKind]) -> Legend:
        return Legend(tuple(kinds), self.legend.runs, self.legend.scale, self.legend.scale_ends)


def runs_drawn(runs: Sequence[RunValues]) -> RunsDrawn:
    """Give each run a style, and all of them a legend; a single run needs none."""
    order = by_accuracy(runs)
    styles = run_styles(len(runs), order)
    legend = Legend()
    if len(runs) > MOST_SERIES:
        known = [best.accuracy for i in order if (best := runs[i].best)]
        ends = (f"{known[-1]:.1f} %", f"{known[0]:.1f} % best accuracy") if known else ("no run", "was evaluated")
        legend = Legend(scale=LIGHT.ranks, scale_ends=ends)
    elif len(runs) > 1:
        legend = Legend(runs=label_runs([run.name for run in runs], styles))
    return RunsDrawn(tuple(runs), tuple(styles), legend)


def error_plot(runs: RunsDrawn) -> Plot | None:
    """Draw top-1 errors against epochs: dashed on training images, solid on validation images. None without epochs."""
    all_curves = [error_curves(run.record) for run in runs.runs]
    shown = [curve for curves in all_curves for curve in curves.all() if len(curve)]
    if not shown:
        return None
    kinds = [
        kind
        for kind, drawn in (
            (TRAIN, any(len(curves.train) for curves in all_curves)),
            (VALIDATION, any(len(curves.validation) for curves in all_curves)),
            (AVERAGE, any(len(curves.average) for curves in all_curves)),
        )
        if drawn
    ]
    legend, most = runs.legend_of(kinds), points_for(len(shown))
    with plain_text():
        axes = epoch_axes("top-1 error, %", legend)
        for i in _best_last(runs):
            curves, style = all_curves[i], runs.styles[i]
            faint = 0.35 if len(runs.runs) > MOST_SERIES else 0.85
            _draw(axes, thinned(curves.train, most), i, style, TRAIN, faint)
            _draw(axes, thinned(curves.average, most), i, style, AVERAGE)
            _draw(axes, thinned(curves.validation, most), i, style, VALIDATION)
        clipped = _clip_errors(axes, shown)
    dashed = (
        "Dashed: on the augmented images of training, as the network was at each step. Solid: on validation images."
    )
    thin = " Thin: on validation images, with the average of the weights." if AVERAGE in kinds else ""
    return Plot("error", "Error", f"Top-1 error in % by epoch. {dashed}{thin}{clipped}", figure_of(axes), legend)


def _best_last(runs: RunsDrawn) -> Iterable[int]:
    """Return the numbers of the runs in the order in which to draw them: the most accurate lies on top."""
    return reversed(by_accuracy(runs.runs))


def _clip_errors(axes: Axes, curves: Sequence[Curve]) -> str:
    """Limit the axis of errors as the paper does, so that the first epochs do not squash the others; say so."""
    values = np.concatenate([curve.y for curve in curves])
    low, high, limit = float(values.min()), float(values.max()), error_limit(curves)
    floor = max(0.0, 5 * np.floor((low - 1) / 5))
    axes.set_ylim(floor, min(100.0, high + 0.03 * (high - floor) + 0.5) if limit is None else limit)
    return (
        "" if limit is None else f" The axis ends at {limit:g} %; errors above it, up to {high:.0f} %, are not shown."
    )


def error_limit(curves: Sequence[Curve]) -> float | None:
    """Return where the axis of errors ends, in per cent; None where all is shown.

    It is above nine tenths of all errors, rounded up to a multiple of 5.
    """
    if max(len(curve) for curve in curves) <= _FEW_EPOCHS:
        return None
    values = np.concatenate([curve.y for curve in curves])
    limit = 5 * float(np.ceil((np.percentile(values, 90) + 1) / 5))
    return limit if limit + 5 < values.max() else None


@dataclass(frozen=True)
class StepPlot:
    """A figure of one value of the step events."""

    key: str
    title: str
    unit: str
    """The title of its axis."""
    event_key: str
    scale: float
    caption: str
    from_zero: bool = True


STEP_PLOTS = (
    StepPlot("learning_rate", "Learning rate", "learning rate", "lr", 1.0, "Learning rate by epoch.", False),
    StepPlot(
        "speed",
        "Speed",
        "images/s",
        "images_per_s",
        1.0,
        "Training images per second, of all processes together; means over the steps between two points.",
    ),
    StepPlot(
        "data_wait",
        "Waiting for data",
        "data wait, %",
        "data_wait",
        100.0,
        "Part of the time, in %, in which training waited for images.",
    ),
    StepPlot(
        "memory",
        "Memory",
        "peak memory, GB",
        "memory_mb",
        1e-3,
        "Peak memory of the first process so far, in 10⁹ bytes: of its tensors on a GPU, all of it on a CPU.",
    ),
)
"""The figures of step events, in order; a further one is an entry here."""


def step_plot(runs: RunsDrawn, plot: StepPlot) -> Plot | None:
    """Draw one value of the step events of all runs; None where no run has it."""
    curves = [step_curve(run.record, plot.event_key, plot.scale) for run in runs.runs]
    return _curves_plot(runs, curves, plot.key, (plot.title, plot.unit, plot.caption), plot.from_zero)


def skipped_plot(runs: RunsDrawn) -> Plot | None:
    """Draw how many steps each run has skipped so far; None where none was."""
    if not any(skipped_steps(run.record) for run in runs.runs):
        return None
    curves = [skipped_curve(run.record) for run in runs.runs]
    caption = "Steps so far that changed nothing, because their loss or gradient was not finite."
    return _curves_plot(runs, curves, "skipped", ("Skipped steps", "skipped steps", caption), True, steps=True)


def _curves_plot(
    runs: RunsDrawn,
    curves: Sequence[Curve],
    key: str,
    texts: tuple[str, str, str],
    from_zero: bool,
    steps: bool = False,
) -> Plot | None:
    drawn = sum(len(curve) > 0 for curve in curves)
    if not drawn:
        return None
    title, unit, caption = texts
    most = points_for(drawn)
    with plain_text():
        axes = epoch_axes(unit, runs.legend)
        for i in _best_last(runs):
            curve = curves[i] if steps else thinned(curves[i], most)  # a mean of two counts is no count
            _draw(axes, curve, i, runs.styles[i], VALIDATION, stepped=steps)
        values = np.concatenate([curve.y for curve in curves])
        if from_zero:
            axes.set_ylim(0, max(float(values.max()) * 1.08, 1e-9))
        elif _spans_decades(values):
            caption += _log_axis(axes, values)
    return Plot(key, title, caption, figure_of(axes), runs.legend)


def _spans_decades(values: Values) -> bool:
    positive = values[values > 0]
    return len(positive) > 0 and float(positive.max()) >= _LOG_RATIO * float(positive.min())


def _log_axis(axes: Axes, values: Values) -> str:
    """Make the axis logarithmic; return what is to be said of it."""
    positive = values[values > 0]
    high, least = float(positive.max()), float(positive.min())
    # The last steps of a cosine fall without end: they would squash all others.
    low = max(float(np.percentile(positive, _LOWEST)), high / 1e5)
    axes.set_yscale("log")
    axes.set_ylim(low / 1.6, high * 1.6)
    axes.yaxis.set_major_locator(LogLocator(10, numticks=7))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}".replace("e-0", "e-"))
    return " The axis is logarithmic" + (", and the lowest values are below it." if low / 1.6 > least else ".")


def _draw(
    axes: Axes,
    curve: Curve,
    run: int,
    style: RunStyle,
    kind: LineKind,
    alpha: float = 1.0,
    stepped: bool = False,
) -> None:
    """Draw a curve, whose few points are dots where a line would not be seen."""
    if not len(curve):
        return
    marker = style.marker if kind is VALIDATION else ""
    width = style.width if kind is VALIDATION else 0.8 if kind.thin else 0.8 * style.width
    axes.plot(
        curve.x,
        curve.y,
        color=style.color,
        linewidth=width,
        linestyle=kind.style,
        marker=marker or ("o" if len(curve) == 1 else ""),
        markersize=4 if marker else 5,
        markevery=markers_every(len(curve)),
        drawstyle="steps-post" if stepped else "default",
        alpha=None if alpha == 1 else alpha,
        gid=run_id(run, kind.name),
        solid_capstyle="round",
    )
