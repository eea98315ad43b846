"""Where a recipe, and the code that trains by it, depart from the paper or the code that it names. Imports no torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from resnext_train.config.fidelity.code_points import CODE_POINTS, NO_FACTS, RunFacts
from resnext_train.config.fidelity.references import CODE, Reference, Value, find_reference
from resnext_train.config.recipe import Recipe
from resnext_train.config.recipe_keys import KEYS, TAGS, all_keys
from resnext_train.config.value_types import amount_and_unit, is_duration

Values = Mapping[str, Value]


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
        if _matters(key, ours, theirs) and not _same(ours[key], theirs[key], epochs)
    ]


_Epochs = tuple[int | None, int | None]
"""Steps of an epoch here and there, where they are known."""


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


def _both(*keys: str) -> Callable[[Values, Values], bool]:
    """Return whether all `keys` are on, on both sides."""
    return lambda ours, theirs: all(side.get(key) for key in keys for side in (ours, theirs))


def _equal(*keys: str) -> Callable[[Values, Values], bool]:
    """Return whether all `keys` have the same values on both sides."""
    return lambda ours, theirs: all(_same(ours.get(key), theirs.get(key)) for key in keys)


def _all(*conditions: Callable[[Values, Values], bool]) -> Callable[[Values, Values], bool]:
    return lambda ours, theirs: all(condition(ours, theirs) for condition in conditions)


def _ours(key: str, value: Value) -> Callable[[Values, Values], bool]:
    return lambda ours, theirs: ours.get(key) == value


_JITTERS = ("augment.brightness", "augment.contrast", "augment.saturation")


def _jitters(at_least: int) -> Callable[[Values, Values], bool]:
    """Return whether so many kinds of colour jitter are on, on both sides."""
    return lambda ours, theirs: all(sum(bool(side.get(k)) for k in _JITTERS) >= at_least for side in (ours, theirs))


def _colours(ours: Values, theirs: Values) -> bool:
    return all(any(side.get(key) for key in (*_JITTERS, "augment.lighting")) for side in (ours, theirs))


def _gray(ours: Values, theirs: Values) -> bool:
    return _both("augment.contrast")(ours, theirs) or _both("augment.saturation")(ours, theirs)


def _mix(ours: Values, theirs: Values) -> bool:
    return _both("mix.mixup")(ours, theirs) or _both("mix.cutmix")(ours, theirs)


def _resizes(ours: Values, theirs: Values) -> bool:
    """Return whether images are resized at all, on both sides: those of CIFAR are not."""
    return all(side.get("augment.crop") != "pad" or _has_margin(side) for side in (ours, theirs))


def _has_margin(side: Values) -> bool:
    """Return whether the evaluation crop is smaller than the resized image."""
    return side.get("eval.resize") != side.get("eval.crop") or side.get("eval.crop_ratio", 1) != 1


def _eval_margin(ours: Values, theirs: Values) -> bool:
    return all(_has_margin(side) and side.get("eval.protocol") not in ("multi_scale", "full") for side in (ours, theirs))


def _own_network(ours: Values, theirs: Values) -> bool:
    return "/" not in str(ours["model.arch"])


def _changes_within_epochs(ours: Values, theirs: Values) -> bool:
    """Return whether the learning rate is a curve, on both sides the same."""
    curved = _ours("schedule.name", "cosine")(ours, theirs) or _ours("schedule.name", "linear")(ours, theirs)
    return _equal("schedule.name")(ours, theirs) and (curved or _both("schedule.warmup")(ours, theirs))


def _several_steps(ours: Values, theirs: Values) -> bool:
    return all(isinstance(side.get("ema.every"), int) and side["ema.every"] != 1 for side in (ours, theirs))


_area = _all(_ours("augment.crop", "area"), _equal("augment.crop"))
_cosine = _all(_both("schedule.warmup"), _equal("schedule.name"), _ours("schedule.name", "cosine"))

_MATTERS: dict[str, Callable[[Values, Values], bool]] = {
    **dict.fromkeys(("erase.value", "erase.count", "erase.area", "erase.aspect"), _both("erase.probability")),
    "augment.growth": _both("augment.start_size"),
    "mix.switch": _both("mix.mixup", "mix.cutmix"),
    "optimizer.decay_1d": _both("optimizer.weight_decay"),
    "schedule.warmup_from": _both("schedule.warmup"),
    "train.last_batch": _equal("train.batch_size"),
    "train.bce_threshold": _all(_equal("train.loss"), _ours("train.loss", "bce")),
    "ema.every": _both("ema.decay"),
    "ema.warmup": _both("ema.decay"),
    "eval.average": _all(_equal("eval.protocol"), lambda ours, theirs: ours["eval.protocol"] not in ("center", "full")),
    "code.crop_attempts": _area,
    "code.crop_position": _area,
    "code.crop_fallback": _all(_area, _equal("augment.aspect_law")),
    "code.crop_order": _equal("augment.crop"),
    **dict.fromkeys(("code.resize_antialias", "code.resize_alignment", "code.resize_rounding"), _resizes),
    "code.pad_fill": _both("augment.padding"),
    "code.jitter_order": _jitters(2),
    "code.brightness": _both("augment.brightness"),
    "code.hue": _colours,
    "code.colours_clamped": _colours,
    "code.gray": _gray,
    "code.lighting_eigenvalues": _both("augment.lighting"),
    "code.lighting_eigenvectors": _both("augment.lighting"),
    "code.mix_partner": _mix,
    "code.bottleneck_stride": _both("code.bottleneck_stride"),
    "code.classifier_weights": _own_network,
    "code.classifier_bias": _own_network,
    "code.decay_exempt": lambda ours, theirs: ours["optimizer.decay_1d"] is theirs.get("optimizer.decay_1d") is False,
    "code.rmsprop_epsilon": _ours("optimizer.name", "rmsprop"),
    "code.rmsprop_start": _ours("optimizer.name", "rmsprop"),
    "code.lr_changes": _changes_within_epochs,
    "code.cosine_start": _cosine,
    "code.last_epochs": _all(_equal("schedule.name"), _ours("schedule.name", "cosine")),
    "code.last_batch_filled": _all(
        _equal("train.batch_size", "train.last_batch"), _ours("train.last_batch", "keep")
    ),
    "code.ema_steps": _all(_both("ema.decay"), _several_steps),
    "code.loss_scale": _all(_ours("code.precision", "fp16"), _equal("code.precision")),
    "code.eval_order": _eval_margin,
    "code.eval_center": _eval_margin,
}
"""When a point is worth a comparison; without a line here always."""


def _variants(section: str) -> dict[str, int]:
    """Return how many variants of a section have each key."""
    keys = [key for key, _ in KEYS if key.startswith(f"{section}.")]
    return {key: keys.count(key) for key in keys}


_COMMON = {
    section: {key for key, n in _variants(section).items() if n == _variants(section)[f"{section}.{tag}"]}
    for section, tag in TAGS.items()
}
"""The keys that all variants of a section have."""


def _matters(key: str, ours: Values, theirs: Values) -> bool:
    section = key.partition(".")[0]
    if section in TAGS and key not in _COMMON[section] and not _equal(f"{section}.{TAGS[section]}")(ours, theirs):
        return False
    return key not in _MATTERS or _MATTERS[key](ours, theirs)


def _same(ours: Value, theirs: Value, epochs: _Epochs = (None, None)) -> bool:
    """Return whether two values mean the same; durations in epochs and in steps may differ by 0.5 %."""
    if isinstance(ours, list) and isinstance(theirs, list):
        return len(ours) == len(theirs) and all(_same(o, t, epochs) for o, t in zip(ours, theirs, strict=True))
    if isinstance(ours, bool) or isinstance(theirs, bool):
        return ours is theirs
    if isinstance(ours, (int, float)) and isinstance(theirs, (int, float)):
        return math.isclose(ours, theirs, rel_tol=1e-5)
    if is_duration(ours) and is_duration(theirs):
        return _same_duration(ours, theirs, epochs)
    return ours == theirs


def _same_duration(ours: Any, theirs: Any, epochs: _Epochs) -> bool:
    (ours, unit), (theirs, their_unit) = amount_and_unit(ours), amount_and_unit(theirs)
    if unit == their_unit:
        return math.isclose(ours, theirs, rel_tol=1e-5)
    per_epoch = epochs[0] if unit == "steps" else epochs[1]
    steps, whole = (ours, theirs) if unit == "steps" else (theirs, ours)
    return per_epoch is not None and math.isclose(steps, whole * per_epoch, rel_tol=5e-3)


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
        if of == section and key not in _COMMON[section] and section in ("schedule", "augment"):
            yield name, value_text(value)


def value_text(value: Value) -> str:
    """Return a value as a list shows it."""
    if isinstance(value, list):
        return f"[{', '.join(map(value_text, value))}]"
    if value is None or isinstance(value, bool):
        return {None: "none", True: "yes", False: "no"}[value]
    return f"{value:.6g}" if isinstance(value, float) else str(value)


