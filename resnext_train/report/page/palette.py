"""The colours of a report: for light and for dark backgrounds, and for readers who see few colours. Imports no torch.

Figures are drawn in the light colours. In the page each of them is a CSS variable, which a dark page sets otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Theme:
    """The colours of one background, as #rrggbb."""

    surface: str
    """The background of figures and text."""
    raised: str
    """That of what stands out a little: heads of tables, code."""
    ink: str
    muted: str
    """Text of less weight: captions, labels of axes."""
    grid: str
    accent: str
    """Links and what has the focus."""
    heat: str
    """The fullest cell of a heat map, whose text is `surface`."""
    series: tuple[str, ...]
    """Runs, by number. At least 3:1 to `surface`, and apart from each other also without red or green cones."""
    ranks: tuple[str, ...]
    """Runs by accuracy, where they are too many for `series`: the least accurate first. From matplotlib's viridis."""


LIGHT = Theme(
    surface="#ffffff",
    raised="#f5f6f8",
    ink="#1b2027",
    muted="#59636f",
    grid="#e4e7eb",
    accent="#0b5cad",
    heat="#1c5a96",
    series=("#1f78c8", "#d4710a", "#2a9d76", "#74185a", "#5c4b00", "#2d2a7c", "#d06aa8"),
    ranks=(
        *("#20a486", "#1f958b", "#25858e", "#2b758e", "#31668e"),
        *("#3a548c", "#424186", "#472e7c", "#48186a", "#440154"),
    ),
)

DARK = Theme(
    surface="#15181d",
    raised="#1e2228",
    ink="#e7eaee",
    muted="#a3adb9",
    grid="#2e343c",
    accent="#7cbcf5",
    heat="#8cc4f2",
    series=("#5aa9f0", "#e8963a", "#1fb98a", "#c4589a", "#f0e48a", "#6a60d8", "#f4c6de"),
    ranks=(
        *("#2a768e", "#24868e", "#1f968b", "#22a785", "#34b679"),
        *("#52c569", "#7ad151", "#a5db36", "#d2e21b", "#fde725"),
    ),
)

NAMES = ("surface", "raised", "ink", "muted", "grid", "accent", "heat")
"""The single colours of a theme, which are variables of the page under these names."""


def variables(theme: Theme) -> dict[str, str]:
    """Return a theme's colours by the names of the page's variables: `ink`, `series-0`, `rank-9` and so on."""
    single = {name: getattr(theme, name) for name in NAMES}
    many = {"series": theme.series, "rank": theme.ranks}
    return single | {f"{name}-{i}": color for name, colors in many.items() for i, color in enumerate(colors)}


@dataclass(frozen=True)
class RunStyle:
    """How a run's curves are drawn, in all figures. Whether a line is dashed says what it shows, not of which run."""

    color: str
    """Of the light theme."""
    variable: str
    """The page's name of that color."""
    marker: str
    """A marker of matplotlib; "" for none."""
    width: float
    """Of its main curves, in points."""


_MARKERS = ("", "o", "s")
MOST_SERIES = 16
"""Runs that have a color or a marker of their own; of more, the color shows their accuracy."""


def run_styles(runs: int, by_accuracy: Sequence[int]) -> list[RunStyle]:
    """Return the styles of `runs` runs; `by_accuracy` are their numbers, the most accurate first."""
    if runs > MOST_SERIES:
        return _ranked(by_accuracy)
    styles = []
    for i in range(runs):
        cycle, color = divmod(i, len(LIGHT.series))
        styles.append(RunStyle(LIGHT.series[color], f"series-{color}", _MARKERS[cycle], 1.7))
    return styles


def _ranked(by_accuracy: Sequence[int]) -> list[RunStyle]:
    levels, last = len(LIGHT.ranks), len(by_accuracy) - 1
    found = {}
    for place, run in enumerate(by_accuracy):
        level = (last - place) * (levels - 1) // last
        found[run] = RunStyle(LIGHT.ranks[level], f"rank-{level}", "", 1.1)
    return [found[i] for i in range(len(by_accuracy))]
