"""The lowest versions allowed are those with which the tests were run."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
NEWEST = {"ruff", "mypy", "hatchling"}
"""Tools that no run of the package or its tests needs."""


def versions(text: str, pattern: str) -> dict[str, str]:
    """What a pattern of a name and a version finds, without zeros at the ends of versions."""
    return {name: re.sub(r"(\.0)+$", "", version) for name, version in re.findall(pattern, text, re.MULTILINE)}


def test_floors_are_the_versions_that_were_run() -> None:
    allowed = versions((ROOT / "pyproject.toml").read_text(), r'"([a-z0-9-]+)>=([\d.]+)"')
    run = versions((ROOT / "tests" / "floors.txt").read_text(), r"^([a-z0-9-]+)==([\d.]+)$")
    assert {name: version for name, version in allowed.items() if name not in NEWEST} == run
