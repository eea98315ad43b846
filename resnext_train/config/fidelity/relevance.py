"""Which points are worth a comparison: not the details of what is off, or differs as a whole. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable

from resnext_train.config.fidelity.references import Value
from resnext_train.config.fidelity.values import Values, same
from resnext_train.config.recipe_keys import KEYS, TAGS

_Condition = Callable[[Values, Values], bool]
"""Of our values and theirs."""


def matters(key: str, ours: Values, theirs: Values) -> bool:
    """Return whether a point, which both sides state, means something on both of them."""
    section = key.partition(".")[0]
    if section in TAGS and key not in COMMON[section] and not _equal(f"{section}.{TAGS[section]}")(ours, theirs):
        return False
    return key not in _MATTERS or _MATTERS[key](ours, theirs)


def _both(*keys: str) -> _Condition:
    """Return whether all `keys` are on, on both sides."""
    return lambda ours, theirs: all(side.get(key) for key in keys for side in (ours, theirs))


def _equal(*keys: str) -> _Condition:
    """Return whether all `keys` have the same values on both sides."""
    return lambda ours, theirs: all(same(ours.get(key), theirs.get(key)) for key in keys)


def _all(*conditions: _Condition) -> _Condition:
    return lambda ours, theirs: all(condition(ours, theirs) for condition in conditions)


def _ours(key: str, value: Value) -> _Condition:
    return lambda ours, theirs: ours.get(key) == value


_JITTERS = ("augment.brightness", "augment.contrast", "augment.saturation")


def _jitters(at_least: int) -> _Condition:
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
    return all(
        _has_margin(side) and side.get("eval.protocol") not in ("multi_scale", "full") for side in (ours, theirs)
    )


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

_MATTERS: dict[str, _Condition] = {
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
    "code.last_batch_filled": _all(_equal("train.batch_size", "train.last_batch"), _ours("train.last_batch", "keep")),
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


COMMON = {
    section: {key for key, n in _variants(section).items() if n == _variants(section)[f"{section}.{tag}"]}
    for section, tag in TAGS.items()
}
"""The keys that all variants of a section have."""
