"""List the shipped recipes with network, data set and published result. Imports no torch.

A recipe's header comment holds the title with the data set, `Reproduces:`, and `Published error:`, `Published
accuracy:` or `Expected:`. Where it departs from its source is computed (fidelity/compare.py).
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from resnext_train.config.data_sections import SyntheticData
from resnext_train.config.recipe import Recipe
from resnext_train.config.recipe_files import shipped_recipes
from resnext_train.config.recipe_loader import flattened, load_recipe_with_notes

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
    """The published error or accuracy, or the expected result, with what each number is."""

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
    for path in sorted(paths, key=lambda p: (p.parent != folder / "imagenet", p.parent, natural_key(p.name))):
        yield read_entry(str(path.relative_to(folder)).removeprefix("imagenet/"))


def read_entry(name: str) -> Entry:
    """Return a shipped or own recipe with its header; raises InputError like `load_recipe`."""
    loaded = load_recipe_with_notes(name)
    header = _header(list(_comment(loaded.layers[-1].text)))
    return Entry(name, loaded.recipe, header["title"], header.get("Reproduces", ""), _result(header))


_FREE = re.compile(
    r"data\.(root|workers|on_bad_image)|model\.(num_classes|form)|checkpoint\..*|log\..*|eval\.(every_epochs|batch_size)|"
    r"train\.(precision|compile|layout|checkpoint_activations|deterministic|bucket_mb|max_skipped|patience|reference|seed)"
)
"""Keys that say where and how a recipe is computed: it stays the same recipe with any of their values."""


def defining_values(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return, by dotted key, the values of a recipe that are not null and make it the recipe that it is.

    `values` has its sections. Without where and how it is computed, and its seed: runs of one recipe have equal ones.
    """
    return {key: v for key, v in flattened(values).items() if v is not None and not _FREE.fullmatch(key)}


@functools.cache  # a report asks for each of its runs
def _shipped() -> tuple[tuple[Entry, dict[str, Any]], ...]:
    return tuple((entry, defining_values(entry.recipe.to_dict())) for entry in catalogue())


def find_entry(recipe: Recipe, classes: int) -> Entry | None:
    """Return the shipped recipe that `recipe`, trained on images of `classes` classes, is; None: an own one."""
    values = defining_values(recipe.to_dict())
    return next((entry for entry, own in _shipped() if entry.classes == classes and own == values), None)


def _result(header: dict[str, str]) -> str:
    """Return what was published, with "error" or "accuracy" beside each number: 22.2 % top-1 alone might be either."""
    for measure in ("error", "accuracy"):
        if published := header.get(f"Published {measure}"):
            return re.sub(r"([\d.]+ %) (top-[15])", rf"\2 {measure} \1", published)
    return header.get("Expected", "")


def _header(comment: Sequence[str]) -> dict[str, str]:
    """Return the paragraphs of a file's first comment, given by line, by label; the first paragraph is `title`."""
    paragraphs, label = {"title": ""}, "title"
    for text in comment:
        start = re.match(r"(Reproduces|Published error|Published accuracy|Expected): ", text)
        if start:
            label, text = start[1], text[start.end() :]
        elif not text:
            label = ""
        if label:
            paragraphs[label] = f"{paragraphs.get(label, '')} {text}".strip()
    return paragraphs


def _comment(text: str) -> Iterator[str]:
    """Yield the lines of the first comment of a file with this content, without its sign."""
    for line in text.splitlines():
        if not line.startswith("#"):
            return
        yield line.removeprefix("#").strip()


def natural_key(name: str) -> list[tuple[float, str]]:
    """Return a key that sorts resnet50 before resnet101, and lr0.0125 before lr0.05."""
    parts = re.split(r"(\d+(?:\.\d+)?)", name, flags=re.ASCII)
    return [(float(part), "") if i % 2 else (-1.0, part) for i, part in enumerate(parts)]
