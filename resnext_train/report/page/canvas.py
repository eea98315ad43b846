"""What the figures of a report have in common: size, axes, legend, and how they become files."""

from __future__ import annotations

import io
import warnings
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import IO, Any, Literal

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator

from resnext_train.errors import printable
from resnext_train.report.page.palette import LIGHT, RunStyle

WIDTH = 5.2
"""Inches: 374 points, so that text has its stated size on a phone."""

_INCH = 72.0
_TEXT, _SMALL = 9.5, 8.5
_LEFT, _RIGHT, _TOP, _BOTTOM = 0.62, 0.14, 0.36, 0.48
"""Inches around the axes."""
_ROW = 0.2
"""Inches of a row of the legend."""

_ROUND = [1, 2, 5, 10]
"""Numbers on axes are multiples of these, times powers of ten."""

LEGEND = "legend"
"""The id of all that the page leaves out, since it has a legend of its own below the figure."""

LineStyle = Literal["-"] | tuple[float, tuple[float, float]]


@dataclass(frozen=True)
class LineKind:
    """What a line of a figure shows, whichever run it is of."""

    name: str
    text: str
    dashed: bool = False
    thin: bool = False

    @property
    def style(self) -> LineStyle:
        return (0, (3.2, 1.6)) if self.dashed else "-"


TRAIN = LineKind("train", "training", dashed=True)
VALIDATION = LineKind("validation", "validation")
AVERAGE = LineKind("average", "validation, average of the weights", thin=True)


@dataclass(frozen=True)
class LegendRun:
    """A run in a legend."""

    number: int
    name: str
    style: RunStyle


@dataclass(frozen=True)
class Legend:
    """What the lines of a figure are: by kind, where there are several, and by run or by accuracy."""

    kinds: tuple[LineKind, ...] = ()
    runs: tuple[LegendRun, ...] = ()
    scale: tuple[str, ...] = ()
    """Colors from the least to the most accurate run, where there are too many runs to name."""
    scale_ends: tuple[str, str] = ("", "")
    """What the first and the last color of the scale stand for."""

    @property
    def rows(self) -> int:
        return bool(self.kinds) + (len(self.runs) + 1) // 2 + bool(self.scale)


@dataclass(frozen=True)
class Plot:
    """A figure and what is said of it."""

    key: str
    """Its file's name, and its anchor in the page."""
    title: str
    caption: str
    """What it shows, with units."""
    figure: Figure
    legend: Legend = Legend()

    @property
    def legend_height(self) -> float:
        """Points at the figure's lower end that the legend takes."""
        return _INCH * _ROW * self.legend.rows

    @cached_property
    def svg(self) -> bytes:
        """The figure as SVG, the same bytes for the same numbers; its text stays text."""
        buffer = io.BytesIO()
        with plain_text():
            self.figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
        return buffer.getvalue()

    def write_png(self, file: IO[bytes]) -> None:
        """Write the figure as PNG of 936 pixels across."""
        with plain_text():
            self.figure.savefig(file, format="png", dpi=180, metadata={"Software": None})


@contextmanager
def plain_text() -> Generator[None]:
    """Draw all text as it is, whatever matplotlib's settings are: names of runs and classes may hold dollar signs."""
    settings: dict[Any, Any] = {  # whose keys matplotlib types one by one
        "text.parse_math": False,
        "text.usetex": False,
        "font.family": ["sans-serif"],
        "font.sans-serif": ["DejaVu Sans"],
        "font.size": _TEXT,
        "svg.fonttype": "none",
        "svg.hashsalt": "resnext",
        "path.simplify": True,
    }
    with warnings.catch_warnings(), matplotlib.rc_context(settings):
        warnings.filterwarnings("ignore", "Glyph .* missing from")  # of other scripts
        yield


def new_axes(title: str, legend: Legend, height: float = 3.2, left: float = _LEFT, low: float = _BOTTOM) -> Axes:
    """Return empty axes in a figure of `height` inches and a legend; `left` and `low` are inches for labels."""
    legend_height = _ROW * legend.rows
    total = height + legend_height
    figure = Figure(figsize=(WIDTH, total), facecolor=LIGHT.surface)
    FigureCanvasAgg(figure)
    low += legend_height
    box = (left / WIDTH, low / total, (WIDTH - left - _RIGHT) / WIDTH, (total - low - _TOP) / total)
    axes = figure.add_axes(box, facecolor="none")
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(LIGHT.muted)
    axes.spines["bottom"].set_linewidth(0.8)
    axes.tick_params(length=0, pad=5, labelsize=_TEXT, labelcolor=LIGHT.muted, colors=LIGHT.muted)
    axes.set_axisbelow(True)
    figure.text(0.08 / WIDTH, 1 - 0.1 / total, title, color=LIGHT.muted, size=_TEXT, va="top")
    _draw_legend(figure, legend, total)
    return axes


def epoch_axes(title: str, legend: Legend) -> Axes:
    """Return empty axes of values against epochs."""
    axes = new_axes(title, legend)
    axes.grid(axis="y", color=LIGHT.grid, linewidth=0.8)
    axes.set_xlabel("epoch", color=LIGHT.muted, size=_TEXT, labelpad=3)
    axes.xaxis.set_major_locator(MaxNLocator(6, steps=_ROUND, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(6, steps=_ROUND))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    axes.margins(x=0.02)
    return axes


def _draw_legend(figure: Figure, legend: Legend, total: float) -> None:
    """Draw the legend in the figure's lower `rows` rows: kinds of lines, then runs in two columns, or a scale."""
    row = legend.rows

    def y() -> float:
        return (row - 0.4) * _ROW / total

    left = 0.14
    for kind in legend.kinds:
        _line(figure, left, y(), LIGHT.muted, kind, "")
        _label(figure, left + 0.36, y(), kind.text)
        left += 0.56 + 0.075 * len(kind.text)
    row -= bool(legend.kinds)
    for place, run in enumerate(legend.runs):
        left = 0.14 + (WIDTH / 2 - 0.1) * (place % 2)
        _line(figure, left, y(), run.style.color, VALIDATION, run.style.marker)
        _label(figure, left + 0.36, y(), shortened(run.name, 32))
        row -= place % 2
    if legend.scale:
        for place, color in enumerate(legend.scale):
            x = (0.14 + 0.16 * place) / WIDTH
            figure.add_artist(_in_legend(Line2D([x, x + 0.15 / WIDTH], [y(), y()], color=color, linewidth=6)))
        _label(figure, 0.14 + 0.16 * len(legend.scale) + 0.1, y(), " to ".join(legend.scale_ends))


def _line(figure: Figure, left: float, y: float, color: str, kind: LineKind, marker: str) -> None:
    x = [left / WIDTH, (left + 0.14) / WIDTH, (left + 0.28) / WIDTH]
    width = 0.8 if kind.thin else 1.7
    line = Line2D(
        x, [y] * 3, color=color, linewidth=width, linestyle=kind.style, marker=marker, markersize=4, markevery=[1]
    )
    figure.add_artist(_in_legend(line))


def _in_legend(line: Line2D) -> Line2D:
    line.set_gid(LEGEND)
    return line


def _label(figure: Figure, left: float, y: float, text: str) -> None:
    label = figure.text(left / WIDTH, y, text, color=LIGHT.muted, size=_SMALL, va="center_baseline")
    label.set_gid(LEGEND)


def shortened(text: str, most: int) -> str:
    """Return a name in one line of at most `most` characters: its beginning and its end."""
    text = printable(text)
    if len(text) <= most:
        return text
    end = most // 3
    return f"{text[: most - end - 1].rstrip()}…{text[-end:].lstrip()}"


def figure_of(axes: Axes) -> Figure:
    """Return the figure that `axes` are part of."""
    figure = axes.get_figure()
    assert isinstance(figure, Figure)
    return figure


def run_id(number: int, kind: str = "") -> str:
    """Return the id of a run's curve in the SVG; the page makes it a class, by which it shows and hides the run."""
    return f"run-{number}-{kind}" if kind else f"run-{number}"


def markers_every(points: int) -> int:
    """Return after how many points a marker stands, so that a curve has some eight."""
    return max(1, points // 8)


def label_runs(names: Sequence[str], styles: Sequence[RunStyle]) -> tuple[LegendRun, ...]:
    """Return the runs of a legend, in order."""
    return tuple(
        LegendRun(i, printable(name), style) for i, (name, style) in enumerate(zip(names, styles, strict=True))
    )
