"""Merge, validate and freeze recipes; every mistake becomes one sentence with file, line and key.

A recipe is a YAML file of sections. Layers from weakest to strongest: the defaults; the file named by the
recipe's `base:` (in the recipe's folder, or shipped; .yaml may be left out), which may have a base itself; the recipe;
`section.key=value` overrides. A layer that changes the variant of a section (`schedule.name`, `data.source`) drops
the weaker layers' keys that the new variant lacks or has with other values, such as a magnitude of another scale. A
level that sets one of two keys that exclude each other (`recipe_keys.EXCLUSIVE`) sets the other one to null; all
overrides are one level.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple, get_args, get_origin

from pydantic import TypeAdapter, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from resnext_train.config.log_section import without_former
from resnext_train.config.micro_batches import NoMicroBatchError, fitting_micro_batch
from resnext_train.config.recipe import Recipe
from resnext_train.config.recipe_files import find_base, find_recipe
from resnext_train.config.recipe_keys import (
    DEFAULT_TAGS,
    EXCLUSIVE,
    FORMER_KEYS,
    KEYS,
    TAGS,
    keys_meant,
    same_keys,
    suggested,
    unknown_key,
    variant_keys,
)
from resnext_train.config.recipe_mistakes import Layer, Mistake, mistake_at, mistakes_in, reason, refuse
from resnext_train.config.train_sections import TrainSection
from resnext_train.config.yaml_reader import check_plain, parse, parse_sections, read_text, read_yaml, shown
from resnext_train.errors import InputError

_MOST_BASES = 2
"""So that a shipped recipe, which may have a base, can be one."""


class LoadedRecipe(NamedTuple):
    """A recipe, and what was decided for it because it left that open."""

    recipe: Recipe
    notes: tuple[str, ...]
    """A sentence for each decision."""
    layers: tuple[Layer, ...]
    """What the recipe was made of, weakest first."""

    def place(self, key: str) -> str:
        """Return the file and line, or the override, that sets `section.key`; the recipe's file if none does."""
        return str(mistake_at(key, self.layers)).removesuffix(": ")


def load_recipe(name: str, overrides: Sequence[str] = ()) -> Recipe:
    """Find, merge, validate and freeze the recipe `name` with `section.key=value` overrides.

    Raises:
        InputError: a missing file, bad YAML, unknown keys, wrong types or values; names file, line and key of each.
    """
    return load_recipe_with_notes(name, overrides).recipe


def load_recipe_with_notes(name: str, overrides: Sequence[str] = ()) -> LoadedRecipe:
    """As `load_recipe`, with what was decided for the recipe."""
    return _validated(_file_layers(find_recipe(name)), overrides)


def loaded_recipe(recipe: str | os.PathLike[str] | Recipe, overrides: Sequence[str] = ()) -> LoadedRecipe:
    """As `load_recipe_with_notes`, of a recipe's name or path, or of a recipe itself."""
    if isinstance(recipe, Recipe):
        return recipe_from_dict_with_notes(recipe.to_dict(), "recipe", overrides)
    return load_recipe_with_notes(os.fspath(recipe), overrides)


def load_stored_recipe(path: Path) -> Recipe:
    """Return the recipe that a run folder holds.

    Raises:
        InputError: see `load_recipe`.
    """
    return recipe_from_dict(read_yaml(path), str(path))


def recipe_from_dict(data: Mapping[str, Any], where: str, overrides: Sequence[str] = ()) -> Recipe:
    """Return the recipe stored as plain types in a checkpoint or run folder; `where` names the place in errors."""
    return recipe_from_dict_with_notes(data, where, overrides).recipe


def recipe_from_dict_with_notes(data: Mapping[str, Any], where: str, overrides: Sequence[str] = ()) -> LoadedRecipe:
    """As `recipe_from_dict`, with what was decided for the recipe."""
    if not isinstance(data, Mapping):
        raise InputError(f"{where}: is not a mapping of sections such as 'model' and 'train'")
    check_plain(data, where)
    return _validated([Layer(where, _BEFORE), Layer(where, dict(data))], overrides)


_BEFORE: dict[str, dict[str, Any]] = {"train": {"last_batch": "keep"}}
"""What was done before there was a key: stored recipes have all keys that were known when they were written."""


def as_continued(recipe: Recipe, stored: Mapping[str, Any]) -> Recipe:
    """Return `recipe` as the run of the `stored` one goes on: keys that `recipe` does not set stay as they were before.

    That is where `stored` lacks them, or states just that, as it does once such a run has been continued. `stored` is
    as it was read: unchecked.
    """
    changed = {}
    for name, values in _BEFORE.items():
        section, held = getattr(recipe, name), stored.get(name)
        known = held if isinstance(held, Mapping) else {}
        if kept := {k: v for k, v in values.items() if k not in section.model_fields_set and known.get(k, v) == v}:
            changed[name] = section.model_copy(update=kept)
    return recipe.model_copy(update=changed)


def differences(old: Recipe, new: Recipe) -> dict[str, tuple[Any, Any]]:
    """Return the dotted keys whose values differ, with old and new value (None: key absent)."""
    before, after = flattened(old.to_dict()), flattened(new.to_dict())
    return {
        key: (before.get(key), after.get(key))
        for key in [*before, *(k for k in after if k not in before)]
        if before.get(key) != after.get(key)
    }


def flattened(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a recipe's sections by dotted key, such as train.seed."""
    return dict(_flatten(values))


def recipe_schema() -> dict[str, Any]:
    """Return the JSON schema of a recipe file for editors: all sections and `base`, none required."""
    schema = Recipe.model_json_schema()
    base = {
        "type": "string",
        "description": "Recipe in the same folder, or shipped, that gives the values which this one does not set.",
    }
    schema["properties"] = {"base": base, **schema["properties"]}
    schema.pop("required", None)
    for definition in schema["$defs"].values():
        definition.pop("required", None)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _file_layers(path: Path) -> list[Layer]:
    layers, file = [_file_layer(path)], path
    while "base" in layers[0].values:
        name = str(layers[0].values.pop("base"))
        base = find_base(name, file)
        if base is None:
            raise InputError(f"{file}: base: {name[:120]} not found in the recipe's folder or among the shipped ones")
        if str(base) in [layer.where for layer in layers]:
            raise InputError(f"{file}: base: {name[:120]} leads in a circle, back to {base}")
        if len(layers) > _MOST_BASES:
            raise InputError(
                f"{file}: base: {name[:120]} is one too many: {path} builds on {_MOST_BASES} others already"
            )
        layers, file = [_file_layer(base), *layers], base
    return layers


def _file_layer(path: Path) -> Layer:
    text = read_text(path)
    return Layer(str(path), parse_sections(text, str(path)), text)


def _override_layers(overrides: Sequence[str], below: dict[str, Any]) -> tuple[list[Layer], list[Mistake]]:
    """Return a layer for each override, those that choose variants first, and the mistakes in the others.

    They are merged into the sections `below` of the recipe.
    """
    layers, mistakes = [], []
    for text in sorted(overrides, key=lambda text: not _is_tag(text)):  # a later choice of variant would drop overrides
        where = _place(text)
        try:
            layers.append(Layer(where, _override(text, where, below)))
        except InputError as error:
            mistakes.append(Mistake(where, None, str(error).removeprefix(f"{where}: ")))
        else:
            _merge(below, layers[-1].values)
    return layers, mistakes


def _place(override: str) -> str:
    return f"override {shown(override)}"


def _override(text: str, where: str, below: Mapping[str, Any]) -> dict[str, Any]:
    key, equals, value = text.partition("=")
    section, dot, name = key.partition(".")
    check_plain({key: value}, where)
    if not (equals and dot and name):
        keys = keys_meant(key) if equals and not dot else []
        meant = [f"data.root={text}"] if os.path.isdir(text) else [suggested(key, [value]) for key in keys]  # noqa: PTH112
        hint = f"; did you mean {' or '.join(meant)[:200]}?" if meant else ""
        raise InputError(f"overrides are written section.key=value, such as train.epochs=10{hint}")
    fields = [f for k, f in [*KEYS, *FORMER_KEYS] if k == key]
    if not fields:
        raise InputError(unknown_key(key, below))
    return {section: {name: value if _is_tag(text) else _typed(value, fields, where, key)}}


def _is_tag(override: str) -> bool:
    section, _, name = override.partition("=")[0].partition(".")
    return name != "" and TAGS.get(section) == name


def _takes_text(annotation: Any) -> bool:
    parts = () if get_origin(annotation) is dict else get_args(annotation)
    return str in (annotation, *parts) and float not in parts


def _typed(text: str, fields: list[FieldInfo], where: str, key: str) -> Any:
    """Parse an override: unchanged for a string key, else as YAML, or as text if no field of that name takes it."""
    if any(_takes_text(field.annotation) for field in fields):
        return None if text == "null" else text
    try:
        parsed = parse(text, where)
        check_plain({key: parsed}, where)
    except InputError:
        parsed = text
    errors: list[ErrorDetails] = []
    for value in (parsed, text):
        for field in fields:
            annotation = Annotated[field.annotation, field]  # type: ignore[name-defined]
            try:
                TypeAdapter(annotation).validate_json(_as_json(value), strict=True)
            except ValidationError as error:
                errors = errors or error.errors()
            else:
                return value
    raise InputError(f"{key}: {reason(errors)}")


def _validated(below: Sequence[Layer], overrides: Sequence[str]) -> LoadedRecipe:
    """Validate what the layers of files or of a stored recipe, weakest first, and the overrides make together."""
    levels = [[layer] for layer in below]
    above, mistakes = _override_layers(overrides, _merged(levels))
    levels.append(above)
    merged = _merged(levels)
    notes = _choose_micro_batch(merged, levels, mistakes)
    try:
        # Strict mode accepts a list for a tuple only from JSON; it still refuses "90" for a number.
        recipe = Recipe.model_validate_json(_as_json(merged), strict=True)
    except ValidationError as error:
        mistakes += mistakes_in(error.errors(), merged, [*below, *above])
    places = [*(_place(text) for text in overrides), *(layer.where for layer in reversed(below))]
    refuse(sorted(mistakes, key=lambda mistake: (places.index(mistake.where), mistake.line or 0)))
    return LoadedRecipe(recipe, notes, (*below, *above))


def _merged(levels: Sequence[Sequence[Layer]]) -> dict[str, Any]:
    """Return the sections of all levels, weakest first, with the variant of each chosen."""
    merged: dict[str, Any] = {}
    for level in levels:
        for layer in level:
            _merge(merged, layer.values)
        _exclude(merged, level)
    for section, tag in TAGS.items():
        if isinstance(merged.setdefault(section, {}), dict):
            merged[section].setdefault(tag, DEFAULT_TAGS[section])
    return merged


def _choose_micro_batch(
    merged: dict[str, Any], levels: Sequence[Sequence[Layer]], mistakes: list[Mistake]
) -> tuple[str, ...]:
    """Choose a micro-batch for a train.batch_size that is set where train.micro_batch is not; return what to say."""
    section = merged.get("train")
    ranks = {key: _strongest(levels, key) for key in ("batch_size", "micro_batch")}
    if not isinstance(section, dict) or ranks["batch_size"] <= ranks["micro_batch"]:
        return ()
    batch = section["batch_size"]
    usual = section.get("micro_batch", TrainSection.model_fields["micro_batch"].default)
    if not all(type(n) is int and 0 < n <= 1_000_000 for n in (batch, usual)) or batch % usual == 0:
        return ()
    try:
        section["micro_batch"] = fitting_micro_batch(batch, usual)
    except NoMicroBatchError as error:
        section.pop("batch_size")
        setting = [x for x in levels[ranks["batch_size"]] if "batch_size" in x.values.get("train", {})]
        layer = setting[-1]  # which wins
        mistakes.append(Mistake.at(layer, ("train", "batch_size"), str(error)))
        return ()
    return (f"train.micro_batch is {section['micro_batch']}: train.batch_size={batch} is no multiple of {usual}",)


def _strongest(levels: Sequence[Sequence[Layer]], key: str) -> int:
    """Return the number of the strongest level that sets train.KEY, or -1."""
    sections = [[layer.values.get("train") for layer in level] for level in levels]
    setting = [n for n, level in enumerate(sections) if any(isinstance(s, Mapping) and key in s for s in level)]
    return max(setting, default=-1)


def _merge(into: dict[str, Any], layer: Mapping[str, Any]) -> None:
    for section, values in layer.items():
        held = into.get(section, {})
        if not isinstance(values, dict) or not isinstance(held, dict):  # a mistake, which no stronger layer hides
            into[section] = values if isinstance(held, dict) else held
            continue
        into.setdefault(section, {})
        if section == "log":
            values = without_former(values, held)
        tag = TAGS.get(section)
        if tag and tag in values:
            kept = same_keys(section, into[section].get(tag, DEFAULT_TAGS[section]), values[tag])
            known = variant_keys(section)  # others are mistakes, to be told
            into[section] = {k: v for k, v in into[section].items() if k in kept or k not in known}
        into[section].update(values)


def _exclude(merged: dict[str, Any], level: Sequence[Layer]) -> None:
    """Set the key to null that excludes one which the level has set, unless it has set both."""
    for section, pair in EXCLUSIVE.items():
        own = [layer.values.get(section) for layer in level]
        named = {key for key in pair for values in own if isinstance(values, Mapping) and key in values}
        chosen = [key for key in named if isinstance(merged[section], dict) and merged[section].get(key) is not None]
        if len(chosen) == 1:
            merged[section][pair[1 - pair.index(chosen[0])]] = None


def _as_json(value: Any) -> str:
    return json.dumps(value, default=str)


def _flatten(data: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in data.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
