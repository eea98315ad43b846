"""The figures of a page: inline, with their legends, in the order in which they are shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from resnext_train.report.page.canvas import Legend, Plot
from resnext_train.report.page.curve_plots import RunsDrawn, runs_drawn
from resnext_train.report.page.inline_svg import inline_svg
from resnext_train.report.page.mistakes_picture import Picture
from resnext_train.report.page.plots import ALL_DETAILED, curve_plots, run_details
from resnext_train.report.run_values import RunValues


@dataclass(frozen=True)
class PageFigure:
    """A figure of the page."""

    key: str
    title: str
    caption: str
    svg: Markup
    legend: Legend


@dataclass(frozen=True)
class PageDetails:
    """What the page shows of one run alone."""

    number: int
    name: str
    figures: tuple[PageFigure, ...]
    mistakes: Picture | None
    problems: tuple[str, ...]


@dataclass(frozen=True)
class PageFigures:
    """All figures of a page."""

    runs: RunsDrawn
    curves: tuple[PageFigure, ...]
    details: tuple[PageDetails, ...]
    plots: tuple[Plot, ...]
    """The same figures, for files."""

    @property
    def details_cut(self) -> bool:
        """Whether only the most accurate runs have details."""
        return len(self.runs.runs) > ALL_DETAILED

    @property
    def has_ranks(self) -> bool:
        """Whether colors show the runs' accuracy."""
        return bool(self.runs.legend.scale)


def draw_figures(runs: Sequence[RunValues], pictures: bool = True) -> PageFigures:
    """Draw all that can be drawn of the runs; without `pictures`, no image of their data is shown."""
    drawn = runs_drawn(runs)
    curves, details = curve_plots(drawn), run_details(runs, pictures)
    return PageFigures(
        drawn,
        tuple(map(_figure, curves)),
        tuple(
            PageDetails(one.number, one.name, tuple(map(_figure, one.plots)), one.mistakes, one.problems)
            for one in details
        ),
        (*curves, *(plot for one in details for plot in one.plots)),
    )


def _figure(plot: Plot) -> PageFigure:
    return PageFigure(plot.key, plot.title, plot.caption, inline_svg(plot), plot.legend)
