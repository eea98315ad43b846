"""Where a recipe, and the code that trains by it, depart from the paper or the code that it names. Imports no torch."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Literal

from resnext_train.config.fidelity.code_points import CODE_POINTS, NO_FACTS, RunFacts
from resnext_train.config.fidelity.references import CODE, Reference, Value, find_reference
from resnext_train.config.fidelity.relevance import COMMON, matters
from resnext_train.config.fidelity.values import Values, same, value_text
from resnext_train.config.recipe import Recipe
from resnext_train.config.recipe_keys import TAGS, all_keys


@dataclass(frozen=True)
class Deviation:
    """A point in which a run departs from its reference."""

    point: str
    """A recipe key, or code.NAME."""
    label: str
    """What it is called in a list."""
    ours: str
    theirs: str
    source: str
    """Where the reference's value is from."""
    effect: str
    """What is known of the difference; "" where nothing is."""
    kind: Literal["recipe", "code"]
    """Whether another recipe would remove it."""

    def to_dict(self) -> dict[str, str]:
        """Return all fields, for the log."""
        return asdict(self)


def reference_of(recipe: Recipe) -> Reference | None:
    """Return the reference that the recipe names."""
    return find_reference(recipe.train.reference) if recipe.train.reference else None


def deviations(recipe: Recipe, facts: RunFacts | None = None) -> list[Deviation]:
    """Return all points in which the recipe and the code depart from the recipe's reference: by key, then by code.

    A detail of what is off on one side, or differs as a whole, is left out: there is no order of colour jitter without
    colour jitter. Without `facts` of a run, its images are taken to be whole and `auto` is not resolved.
    """
    reference = reference_of(recipe)
    if reference is None:
        return []
    facts = facts or NO_FACTS
    ours, theirs = _our_values(recipe, facts, reference), reference.values
    epochs = _steps_per_epoch(facts.images or reference.images, ours), _steps_per_epoch(reference.images, theirs)
    return [
        _deviation(key, ours, reference)
        for key in _ORDER
        if key in ours and key in theirs
        if matters(key, ours, theirs) and not same(ours[key], theirs[key], epochs)
    ]


def _steps_per_epoch(images: int | None, values: Values) -> int | None:
    batch = values.get("train.batch_size")
    return math.ceil(images / batch) if images and isinstance(batch, int) else None


_ORDER = (*all_keys(), *(f"{CODE}.{name}" for name in CODE_POINTS))


def _deviation(key: str, ours: Values, reference: Reference) -> Deviation:
    statement = reference.stated[key]
    section, _, name = key.partition(".")
    point = CODE_POINTS[name] if section == CODE else None
    return Deviation(
        key,
        point.label if point else key,
        _described(key, ours),
        _described(key, reference.values),
        statement.source,
        statement.effect or (point.remark if point else ""),
        "code" if point else "recipe",
    )


def _our_values(recipe: Recipe, facts: RunFacts, reference: Reference) -> dict[str, Value]:
    """Return the values of all keys and points, those that stand for each other in the reference's terms."""
    values: dict[str, Value] = {
        f"{section}.{key}": value for section, keys in recipe.to_dict().items() for key, value in keys.items()
    }
    batch, theirs = recipe.train.batch_size, reference.values
    peak = recipe.optimizer.peak_lr(batch)
    values |= {"optimizer.lr": peak, "optimizer.lr_per_256": 256 * peak / batch}
    values |= {"eval.resize": recipe.eval.short_side, "eval.crop_ratio": _crop_ratio(recipe, theirs)}
    values["train.last_batch"] = _last_batch(recipe, facts.images or reference.images)
    return values | {f"{CODE}.{name}": point.ours(recipe, facts) for name, point in CODE_POINTS.items()}


def _crop_ratio(recipe: Recipe, theirs: Values) -> float:
    section, stated = recipe.eval, theirs.get("eval.crop_ratio")
    if section.crop_ratio is not None:
        return section.crop_ratio
    if isinstance(stated, float) and section.short_side == math.floor(section.crop / stated):
        return stated
    return section.crop / section.short_side


def _last_batch(recipe: Recipe, images: int | None) -> str:
    """Return what is done with an epoch's last batch: keep or drop, where that is known."""
    train = recipe.train
    if train.last_batch != "auto" or images is None:
        return train.last_batch
    return "keep" if 2 * (images % train.batch_size) >= train.batch_size else "drop"


def _described(key: str, values: Values) -> str:
    """Return the text of a value; of the choice of a variant with the keys that only this one has."""
    section, _, name = key.partition(".")
    text = value_text(values[key])
    if TAGS.get(section) != name:
        return text
    details = ", ".join(f"{k} {v}" for k, v in _details(section, values))
    return f"{text} ({details})" if details else text


def _details(section: str, values: Values) -> Iterator[tuple[str, str]]:
    for key, value in values.items():
        of, _, name = key.partition(".")
        if of == section and key not in COMMON[section] and section in ("schedule", "augment"):
            yield name, value_text(value)
