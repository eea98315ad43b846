"""The pages for developers name files and code that are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = ["CONTRIBUTING.md", "docs/architecture.md"]


def quoted(page: str) -> list[str]:
    """What a page puts in backticks."""
    return re.findall(r"`([^`\n]+)`", (ROOT / page).read_text())


@pytest.mark.parametrize("page", PAGES)
def test_files_and_folders_exist(page: str) -> None:
    named = {text for text in quoted(page) if re.fullmatch(r"[\w./-]+(\.(py|md|yaml|sh|toml)|/)", text)}
    parts = ("resnext_train", "tests", "docs", "configs", "scripts")
    here = [ROOT, *(path for part in parts for path in (ROOT / part, *(ROOT / part).rglob("*")) if path.is_dir())]
    on_disk = {"recipe.yaml"}  # of a run, not of the project
    assert len(named) >= 3
    assert not {name for name in named - on_disk if not any((folder / name).exists() for folder in here)}


@pytest.mark.parametrize("page", PAGES)
def test_names_of_code_occur_in_it(page: str) -> None:
    dotted = {text.split(":")[0] for text in quoted(page) if re.fullmatch(r"[\w.]+(: .*)?", text)}
    names = {part for text in dotted for part in text.split(".") if re.search(r"_|[a-z][A-Z]", part)}
    code = {word for path in (ROOT / "resnext_train").rglob("*.py") for word in re.findall(r"\w+", path.read_text())}
    files = {path.stem for path in (ROOT / "resnext_train").rglob("*.py")}
    assert not names - code - files - {"build_", "resnext50_32x4d"}
