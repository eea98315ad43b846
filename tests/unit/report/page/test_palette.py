"""Colours of runs can be told from the background, and from each other without red or green cones."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from numpy.typing import NDArray

from resnext_train.report.page.palette import DARK, LIGHT, MOST_SERIES, Theme, run_styles, variables

THEMES = pytest.mark.parametrize("theme", [LIGHT, DARK], ids=["light", "dark"])

# Machado, Oliveira and Fernandes, "A physiologically-based model for simulation of color vision deficiency" (2009),
# severity 1.0, on linear RGB.
VISION = {
    "normal": np.eye(3),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
}


def linear(color: str) -> NDArray[np.float64]:
    srgb = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)


def contrast(one: str, other: str) -> float:
    """The contrast ratio of WCAG 2."""
    low, high = sorted(float(linear(color) @ [0.2126, 0.7152, 0.0722]) + 0.05 for color in (one, other))
    return high / low


def lab(rgb: NDArray[np.float64]) -> NDArray[np.float64]:
    """CIELAB under D65 of linear RGB."""
    to_xyz = np.array(
        [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
    )
    xyz = to_xyz @ np.clip(rgb, 0, 1) / [0.95047, 1.0, 1.08883]
    f = np.where(xyz > 216 / 24389, np.cbrt(xyz), (24389 / 27 * xyz + 16) / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def test_the_measures_are_right() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.005)
    assert lab(linear("#ffffff")) == pytest.approx([100, 0, 0], abs=0.02)
    assert lab(linear("#ff0000")) == pytest.approx([53.24, 80.09, 67.20], abs=0.02)
    gray = VISION["deuteranopia"] @ linear("#808080")
    assert gray == pytest.approx(linear("#808080"), abs=1e-4)


@THEMES
def test_curves_can_be_told_from_the_background(theme: Theme) -> None:
    for color in (*theme.series, *theme.ranks, theme.heat, theme.accent):
        assert contrast(color, theme.surface) >= 3, color


@THEMES
def test_text_can_be_read(theme: Theme) -> None:
    for color in (theme.ink, theme.muted, theme.accent):
        for background in (theme.surface, theme.raised):
            assert contrast(color, background) >= 4.5, (color, background)


@THEMES
@pytest.mark.parametrize("vision", VISION)
def test_runs_can_be_told_apart(theme: Theme, vision: str) -> None:
    seen = [lab(VISION[vision] @ linear(color)) for color in theme.series]
    assert min(float(np.linalg.norm(a - b)) for a, b in combinations(seen, 2)) >= 18


@THEMES
@pytest.mark.parametrize("vision", VISION)
def test_more_accurate_runs_stand_out_more(theme: Theme, vision: str) -> None:
    lightness = [lab(VISION[vision] @ linear(color))[0] for color in theme.ranks]
    steps = np.diff(lightness) if theme is DARK else -np.diff(lightness)
    assert np.all(steps > 0)


def test_a_dark_page_sets_what_a_light_one_does() -> None:
    assert variables(DARK).keys() == variables(LIGHT).keys()
    assert len(set(variables(LIGHT).values())) == len(variables(LIGHT)), "figures are recoloured by colour"


def test_each_of_a_few_runs_has_a_style_of_its_own() -> None:
    styles = run_styles(MOST_SERIES, range(MOST_SERIES))
    assert len({(style.color, style.marker) for style in styles}) == MOST_SERIES


def test_of_many_runs_the_colour_shows_the_accuracy() -> None:
    best_first = [*range(19, -1, -1)]
    styles = run_styles(20, best_first)
    assert (styles[19].color, styles[0].color) == (LIGHT.ranks[-1], LIGHT.ranks[0])
    levels = [LIGHT.ranks.index(style.color) for style in styles]
    assert levels == sorted(levels)
    assert set(levels) == set(range(len(LIGHT.ranks)))
