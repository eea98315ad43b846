"""List the shipped recipes with network, data set and published result. Imports no torch.

A recipe's header comment holds the title with the data set, `Reproduces:`, and `Published error:` or `Expected:`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from resnext_train.config.data_sections import SyntheticData
from resnext_train.config.recipe import Recipe
from resnext_train.config.recipe_files import find_recipe, shipped_recipes
from resnext_train.config.recipe_loader import load_recipe
from resnext_train.config.yaml_reader import read_text

_CLASSES = {"ImageNet-1K": 1000, "ImageNet-5K": 5000, "CIFAR-100": 100, "CIFAR-10": 10}
_STATED = re.compile(r"\((\d+) classes\)")


@dataclass(frozen=True)
class Entry:
    """A recipe and the texts of its header; a text that the header lacks is empty."""

    name: str
    """Name for `--config`."""
    recipe: Recipe
    title: str
    reproduces: str
    result: str
    """The published error, or the expected result."""

    @property
    def classes(self) -> int | None:
        """Classes of the data set in the title; None: no known data set."""
        if isinstance(self.recipe.data, SyntheticData):
            return self.recipe.data.classes
        stated = _STATED.search(self.title)
        return int(stated[1]) if stated else next((n for k, n in _CLASSES.items() if k in self.title), None)


def catalogue() -> Iterator[Entry]:
    """Yield all shipped recipes by folder and name, ImageNet-1K first, named as for `--config`."""
    folder = shipped_recipes()
    paths = (p for p in folder.rglob("*.yaml") if not p.name.startswith("_"))
    for path in sorted(paths, key=lambda p: (p.parent != folder / "imagenet", p.parent, _natural(p.name))):
        yield read_entry(str(path.relative_to(folder)).removeprefix("imagenet/"))


def read_entry(name: str) -> Entry:
    """Return a shipped or own recipe with its header; raises InputError like `load_recipe`."""
    header = _header(find_recipe(name))
    result = header.get("Published error", header.get("Expected", ""))
    return Entry(name, load_recipe(name), header["title"], header.get("Reproduces", ""), result)


def _header(path: Path) -> dict[str, str]:
    """Return the paragraphs of a file's first comment by label; the first paragraph is `title`."""
    paragraphs, label = {"title": ""}, "title"
    for line in read_text(path).splitlines():
        if not line.startswith("#"):
            break
        text = line.removeprefix("#").strip()
        start = re.match(r"(Reproduces|Published error|Expected): ", text)
        if start:
            label, text = start[1], text[start.end() :]
        elif not text:
            label = ""
        if label:
            paragraphs[label] = f"{paragraphs.get(label, '')} {text}".strip()
    return paragraphs


def _natural(name: str) -> list[tuple[int, str]]:
    """Return a key that sorts resnet50 before resnet101."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]
