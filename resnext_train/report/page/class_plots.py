"""Figures of one run's classes: the least accurate ones with intervals, and what they were taken for."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from matplotlib.ticker import FixedLocator

from resnext_train.evaluation.wilson import wilson_interval
from resnext_train.report.page.canvas import Legend, Plot, figure_of, new_axes, plain_text, shortened
from resnext_train.report.page.class_results import ClassResult, ConfusionPart
from resnext_train.report.page.palette import LIGHT

MOST_CLASSES = 20
"""Classes whose accuracy is drawn."""

_ROW, _CELL = 0.21, 0.27
"""Inches between two classes, and of a cell's height."""
_NAME = 24
"""Characters of a class's name."""
_LEFT, _HEAD = 1.62, 1.3
"""Inches for the names of classes, left and below."""
_FULLEST = 0.42
"""Opacity that a full cell has more than an empty one: text is legible on it, on light and on dark."""


def class_plot(key: str, classes: Sequence[ClassResult]) -> Plot | None:
    """Draw the accuracies of the least accurate classes with their 95 % intervals; None without classes."""
    shown = classes[:MOST_CLASSES]
    if not shown:
        return None
    with plain_text():
        height = 0.95 + _ROW * len(shown)
        axes = new_axes("accuracy, %", Legend(), height, left=_LEFT)
        for y, result in enumerate(shown):
            low, high = wilson_interval(result.correct, result.count)
            axes.plot([low, high], [y, y], color=LIGHT.heat, linewidth=2.2, alpha=0.45, solid_capstyle="round")
            axes.plot([result.accuracy], [y], "o", color=LIGHT.heat, markersize=4.5)
        axes.set_ylim(len(shown) - 0.4, -0.6)
        axes.set_xlim(-2, 102)
        axes.set_xticks(range(0, 101, 20))
        axes.grid(axis="x", color=LIGHT.grid, linewidth=0.8)
        _name_rows(axes, [result.title for result in shown])
    which = (
        "All classes" if len(shown) == len(classes) else f"The {len(shown)} least accurate of {len(classes):,} classes"
    )
    images = _range([result.count for result in shown])
    caption = f"{which}: accuracy in % with its 95 % interval (Wilson); {images} validation images each."
    return Plot(key, "Accuracy per class", caption, figure_of(axes))


def _range(counts: Sequence[int]) -> str:
    low, high = min(counts), max(counts)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _name_rows(axes: Axes, names: Sequence[str]) -> None:
    axes.yaxis.set_major_locator(FixedLocator(range(len(names))))
    axes.set_yticklabels([shortened(name, _NAME) for name in names], color=LIGHT.ink)


def confusion_plot(key: str, part: ConfusionPart) -> Plot:
    """Draw part of a confusion matrix: shares of the images of each class, the fuller the larger."""
    rows, columns = len(part.labels), len(part.predicted)
    with plain_text():
        axes = new_axes(
            "images of a class, %, by what they were taken for", Legend(), _HEAD + 0.4 + _CELL * rows, _LEFT, _HEAD
        )
        axes.spines["bottom"].set_visible(False)
        axes.set_xlim(-0.5, columns - 0.5)
        axes.set_ylim(rows - 0.5, -0.5)
        for y, shares in enumerate(part.shares):
            for x, share in enumerate(shares):
                _cell(axes, (x, y), share, is_own=part.own[y] == x)
        _name_rows(axes, part.labels)
        axes.xaxis.set_major_locator(FixedLocator(range(columns)))
        names = [shortened(name, _NAME - 4) for name in part.predicted]
        axes.set_xticklabels(names, color=LIGHT.ink, rotation=42, ha="right", rotation_mode="anchor")
        axes.tick_params(axis="x", pad=3)
    caption = (
        "Rows: the images of a class; columns: what they were taken for, in % of the row. Framed: the right class. "
        "Shares below 0.5 % have no number."
    )
    return Plot(key, "What the least accurate classes are taken for", caption, figure_of(axes))


def _cell(axes: Axes, place: tuple[int, int], share: float, is_own: bool) -> None:
    x, y = place
    box = (x - 0.46, y - 0.44)
    if share > 0:
        axes.add_patch(
            Rectangle(box, 0.92, 0.88, facecolor=LIGHT.heat, alpha=0.05 + _FULLEST * share / 100, linewidth=0)
        )
    if is_own:
        axes.add_patch(Rectangle(box, 0.92, 0.88, fill=False, edgecolor=LIGHT.heat, linewidth=1.2))
    if share >= 0.5:
        axes.text(x, y, f"{share:.0f}", ha="center", va="center_baseline", color=LIGHT.ink, size=8.5)
