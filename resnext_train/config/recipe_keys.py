"""The keys of a recipe, and what to say where one is unknown. Imports no torch.

A section of several variants (`schedule`, `augment`, ...) is chosen by one of its keys, its tag (`schedule.name`), and
has other keys in each.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, get_args, get_origin

from pydantic.fields import FieldInfo

from resnext_train.config import foreign_names
from resnext_train.config.recipe import Recipe
from resnext_train.config.value_types import Section


def _variants(section: str) -> list[type[Section]]:
    """Return the section classes that a field of Recipe may hold."""
    annotation = Recipe.model_fields[section].annotation
    members = get_args(annotation) if get_origin(annotation) is not None else (annotation,)
    return [m for m in members if isinstance(m, type) and issubclass(m, Section)]


KEYS: list[tuple[str, FieldInfo]] = [
    (f"{section}.{name}", inner)
    for section in Recipe.model_fields
    for variant in _variants(section)
    for name, inner in variant.model_fields.items()
]
"""All keys as `section.key`, with the type of each; a key of several variants occurs once for each."""

FORMER_KEYS: list[tuple[str, FieldInfo]] = [("log.tensorboard", FieldInfo(annotation=bool))]
"""Keys that recipes and scripts had, and that are still understood, see `without_former`."""

TAGS: dict[str, str] = {
    section: str(field.discriminator) for section, field in Recipe.model_fields.items() if field.discriminator
}
"""The key that chooses the variant of a section, for each section that has variants."""

DEFAULT_TAGS: dict[str, str] = {
    section: getattr(Recipe.model_fields[section].default, key) for section, key in TAGS.items()
}


EXCLUSIVE: dict[str, tuple[str, str]] = {"optimizer": ("lr", "lr_per_256"), "eval": ("resize", "crop_ratio")}
"""Two keys of a section of which just one has a value; the other one is null."""


def variant_keys(section: str, tag: object = None) -> set[str]:
    """Return the keys of the variant of `section` that the value `tag` chooses, or of all if it chooses none."""
    return {name for v in _chosen(section, tag) for name in v.model_fields}


def same_keys(section: str, old: object, new: object) -> set[str]:
    """Return the keys of the variant that the tag `new` chooses which take the same values in that of `old`."""
    before, after = (
        {n: _values(f) for v in _chosen(section, t) for n, f in v.model_fields.items()} for t in (old, new)
    )
    return {name for name in before.keys() & after.keys() if before[name] == after[name]}


def _chosen(section: str, tag: object) -> list[type[Section]]:
    """Return the variant of `section` that the value `tag` chooses, or all if it chooses none."""
    variants, key = _variants(section), TAGS.get(section)
    return [v for v in variants if key and tag in get_args(v.model_fields[key].annotation)] or variants


def _values(field: FieldInfo) -> tuple[Any, list[Any]]:
    """Return what a key takes: its type and the limits of it."""
    return field.annotation, field.metadata


def all_keys() -> list[str]:
    """Return all keys of all sections and variants, each once."""
    return list(dict.fromkeys(key for key, _ in KEYS))


def keys_named(name: str) -> list[str]:
    """Return all keys `section.NAME`."""
    return [key for key in all_keys() if key.partition(".")[2] == name]


def keys_meant(name: str) -> list[str]:
    """Return the keys `section.NAME`, or else the one that other trainers call so."""
    return keys_named(name) or ([foreign_names.KEYS[name]] if name in foreign_names.KEYS else [])


def suggested(key: str, values: Sequence[str]) -> str:
    """Return the override that sets `key` to `values`; where these are none that it takes, what it takes."""
    is_list = any(get_origin(field.annotation) is tuple for name, field in KEYS if name == key)
    value = ",".join(values)
    if value and not value.startswith("[") and (is_list or len(values) > 1):
        value = f"[{value}]"
    words = _words(key)
    if words == ["false", "true"]:
        return f"{key}={value or 'true'}"
    if words and value not in words:
        return f"{key}=VALUE, one of {', '.join(words)}"
    return f"{key}={value or 'VALUE'}"


def _words(key: str) -> list[str]:
    """Return the words that `section.key` takes, or an empty list if it takes anything else."""
    words: list[str] = []
    for field in (field for name, field in KEYS if name == key):
        if field.annotation is bool:
            return ["false", "true"]
        if get_origin(field.annotation) is not Literal:
            return []
        words += get_args(field.annotation)
    return list(dict.fromkeys(words))


def unknown_key(key: str, sections: Mapping[str, Any]) -> str:
    """Say that `key`, such as train.epoch, is not one of a recipe with these `sections`, and what may be meant."""
    section, _, name = key.partition(".")
    if section not in Recipe.model_fields:
        return _unknown_section(key)
    tag = TAGS.get(section)
    held = sections.get(section)
    chosen = held.get(tag, DEFAULT_TAGS[section]) if tag and isinstance(held, Mapping) else None
    if owners := [] if tag is None else _owners(section, tag, name):
        belongs = f"{key} is a key of {' and '.join(owners)}, not of the chosen {section}.{tag}={chosen}"
        return f"{belongs}; remove it, or choose {owners[0]}"
    own = sorted(variant_keys(section, chosen))
    foreign = foreign_names.KEYS.get(key) or foreign_names.KEYS.get(name, "")
    if foreign.startswith(f"{section}.") and foreign.removeprefix(f"{section}.") in own:
        return f"unknown key {key[:120]}; did you mean {foreign}?"
    if near := difflib.get_close_matches(name, own, n=1, cutoff=0.7):
        return f"unknown key {key[:120]}; did you mean {section}.{near[0]}?"
    if not foreign.startswith(f"{section}.") and (meant := _meant(name)):
        return f"unknown key {key[:120]}; {meant}"
    of = f"{section} ({tag}={chosen})" if tag else section
    return f"unknown key {key[:120]}; the keys of {of} are {_listed(section, own)}"


def _unknown_section(key: str) -> str:
    section, dot, name = key.partition(".")
    sections = list(Recipe.model_fields)
    near = difflib.get_close_matches(section, sections, n=1, cutoff=0.7)
    if not dot and (meant := _meant(section)):
        return f"unknown key {key[:120]}; {meant}"
    if near and not dot:
        return f"unknown key {key[:120]}; did you mean {near[0]}?"
    if near and f"{near[0]}.{name}" in keys_named(name):
        return f"unknown key {key[:120]}; did you mean {near[0]}.{name}?"
    if meant := _meant(name):
        return f"unknown key {key[:120]}; {meant}"
    return f"unknown key {key[:120]}; the sections are {', '.join(sections)}"


def _meant(name: str) -> str:
    """Ask for the keys that are called `name`, or chosen by that word, if there are any."""
    chosen = [f"{section}.{tag}={name}" for section, tag in TAGS.items() if name in _words(f"{section}.{tag}")]
    found = keys_meant(name) or chosen
    return f"did you mean {' or '.join(found)}?" if found else foreign_names.ADVICE.get(name, "")


def _owners(section: str, tag: str, name: str) -> list[str]:
    """Return the choices, such as augment.crop=pad, whose variant has the key `name`."""
    tags = [get_args(v.model_fields[tag].annotation)[0] for v in _variants(section) if name in v.model_fields]
    return [f"{section}.{tag}={value}" for value in tags]


def _listed(section: str, names: Iterable[str]) -> str:
    order = list(dict.fromkeys(key.partition(".")[2] for key, _ in KEYS if key.startswith(f"{section}.")))
    return ", ".join(sorted(names, key=order.index))
