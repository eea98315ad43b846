"""The shipped recipes as a list: which network, on which data, with which published result. No torch.

A recipe's header comment carries what its keys cannot: the title with the data set, `Reproduces:`, and
`Published error:` or `Expected:`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from resnext_train.config.data_sections import SyntheticData
from resnext_train.config.recipe import Recipe
from resnext_train.config.recipe_loader import find_recipe, load_recipe, shipped_recipes

_CLASSES = {"ImageNet-1K": 1000, "ImageNet-5K": 5000, "CIFAR-100": 100, "CIFAR-10": 10}
_STATED = re.compile(r"\((\d+) classes\)")


@dataclass(frozen=True)
class Entry:
    """A shipped recipe and what its header says. Texts are empty where the header is silent."""

    name: str
    """As `--config` takes it."""
    recipe: Recipe
    title: str
    reproduces: str
    result: str
    """The published error, or what to expect."""

    @property
    def classes(self) -> int | None:
        """Classes of the data set in the title; None where it names none that is known."""
        if isinstance(self.recipe.data, SyntheticData):
            return self.recipe.data.classes
        stated = _STATED.search(self.title)
        return int(stated[1]) if stated else next((n for k, n in _CLASSES.items() if k in self.title), None)


def catalogue() -> Iterator[Entry]:
    """All shipped recipes, by folder and name; those of ImageNet-1K without their folder, as `--config` takes them."""
    folder = shipped_recipes()
    paths = (p for p in folder.rglob("*.yaml") if not p.name.startswith("_"))
    for path in sorted(paths, key=lambda p: (p.parent != folder / "imagenet", p.parent, _natural(p.name))):
        yield read_entry(str(path.relative_to(folder)).removeprefix("imagenet/"))


def read_entry(name: str) -> Entry:
    """The recipe `name`, shipped or of a user's own, with its header; raises InputError as load_recipe does."""
    told = _header(find_recipe(name))
    result = told.get("Published error", told.get("Expected", ""))
    return Entry(name, load_recipe(name), told["title"], told.get("Reproduces", ""), result)


def _header(path: Path) -> dict[str, str]:
    """The paragraphs of the comment that starts a file: the first as `title`, others by the label before a colon."""
    told, label = {"title": ""}, "title"
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        text = line.removeprefix("#").strip()
        start = re.match(r"(Reproduces|Published error|Expected): ", text)
        if start:
            label, text = start[1], text[start.end() :]
        elif not text:
            label = ""
        if label:
            told[label] = f"{told.get(label, '')} {text}".strip()
    return told


def _natural(name: str) -> list[tuple[int, str]]:
    """A key that sorts resnet50 before resnet101."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]
