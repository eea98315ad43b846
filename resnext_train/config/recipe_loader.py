"""Find, merge, validate and freeze recipes; every mistake becomes one sentence.

A recipe is a YAML file of nine sections. Layers from weakest to strongest: the defaults; the file named by the
recipe's `base:` (one level; in the recipe's folder, or shipped; .yaml may be left out); the recipe;
`section.key=value` overrides. A layer that changes the variant of a section (`schedule.name`, `data.source`) drops
the weaker layers' keys that the new variant lacks.
"""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

from pydantic import TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from resnext_train.config.recipe import Recipe
from resnext_train.config.value_types import Section
from resnext_train.config.yaml_reader import check_plain, parse, read_yaml, shown
from resnext_train.errors import InputError


def shipped_recipes() -> Path:
    """Return the folder of the shipped recipes: inside the package (a wheel) or next to it (a checkout)."""
    package = Path(__file__).parent.parent
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"


def find_recipe(name: str) -> Path:
    """Return the file of `--config NAME`.

    The first of: an existing path NAME or NAME.yaml; the shipped DATASET/NAME.yaml; the shipped imagenet/NAME.yaml;
    NAME.yaml in another data set's folder, if only one has it.

    Raises:
        InputError: no such recipe (the message lists the nearest names), a folder, or an ambiguous name.
    """
    shipped, file = shipped_recipes(), _with_ending(name)
    for candidate in (Path(name), Path(file), *(folder / file for folder in _shipped_folders())):
        if _is_file(candidate):
            return candidate
    known = sorted(str(p.relative_to(shipped)) for p in shipped.rglob("*.yaml") if not p.name.startswith("_"))
    matches = [k for k in known if k.endswith("/" + file)]
    if len(matches) == 1:
        return shipped / matches[0]
    if matches:
        raise InputError(f"recipe {name} is ambiguous: give one of {', '.join(matches)}")
    names = dict.fromkeys(k.removeprefix("imagenet/") for k in known)
    bare = {name.rsplit("/", 1)[-1]: name for name in reversed(names)}
    near = [bare.get(match, match) for match in difflib.get_close_matches(file, [*bare, *names], n=6, cutoff=0.5)]
    near = list(dict.fromkeys(near))[:3]
    hint = f"did you mean {' or '.join(near)}?" if near else f"shipped recipes: {', '.join(known)}"
    raise InputError(f"recipe {name} not found, neither as a path nor among the shipped recipes; {hint}")


def _shipped_folders() -> tuple[Path, Path]:
    """Return where a shipped recipe's name starts from: ImageNet-1K's need no folder."""
    return shipped_recipes(), shipped_recipes() / "imagenet"


def _with_ending(name: str) -> str:
    return name if name.endswith((".yaml", ".yml")) else f"{name}.yaml"


def _is_file(path: Path) -> bool:
    return os.path.isfile(path)  # noqa: PTH113  unlike Path.is_file: False for a path too long or not permitted


def run_name(name: str) -> str:
    """Return the default name of a run of the recipe `name`: its file name without the ending.

    Shipped recipes keep their data set's folder, except ImageNet-1K's, because data sets share file names.
    """
    path, shipped = find_recipe(name).resolve(), shipped_recipes().resolve()
    if path.is_relative_to(shipped):
        return str(path.relative_to(shipped).with_suffix("")).removeprefix("imagenet/")
    return path.stem


def load_recipe(name: str, overrides: Sequence[str] = ()) -> Recipe:
    """Find, merge, validate and freeze the recipe `name` with `section.key=value` overrides.

    Raises:
        InputError: a missing file, bad YAML, an unknown key, a wrong type or value; names file and key.
    """
    layers = [*_file_layers(find_recipe(name)), *_override_layers(overrides)]
    return _validated(layers)


def load_stored_recipe(path: Path) -> Recipe:
    """Return the recipe that a run folder holds.

    Raises:
        InputError: see `load_recipe`.
    """
    return recipe_from_dict(read_yaml(path), str(path))


def recipe_from_dict(data: Mapping[str, Any], where: str, overrides: Sequence[str] = ()) -> Recipe:
    """Return the recipe stored as plain types in a checkpoint or run folder; `where` names the place in errors."""
    if not isinstance(data, Mapping):
        raise InputError(f"{where}: is not a mapping of sections such as 'model' and 'train'")
    check_plain(data, where)
    return _validated([(where, _BEFORE), (where, dict(data)), *_override_layers(overrides)])


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
    before, after = dict(_flatten(old.to_dict())), dict(_flatten(new.to_dict()))
    return {
        key: (before.get(key), after.get(key))
        for key in [*before, *(k for k in after if k not in before)]
        if before.get(key) != after.get(key)
    }


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


Layer = tuple[str, dict[str, Any]]


def _file_layers(path: Path) -> list[Layer]:
    data = read_yaml(path)
    if "base" not in data:
        return [(str(path), data)]
    name = str(data.pop("base"))
    places = [folder / file for folder in (path.parent, *_shipped_folders()) for file in (name, _with_ending(name))]
    base = next((place for place in places if _is_file(place)), None)
    if base is None:
        raise InputError(f"{path}: base: {name[:120]} not found in the recipe's folder or among the shipped ones")
    below = read_yaml(base)
    if "base" in below:
        raise InputError(f"{base}: has a base: of its own, but {path} builds on it; only one level is allowed")
    return [(str(base), below), (str(path), data)]


def _override_layers(overrides: Sequence[str]) -> list[Layer]:
    layers = []
    for text in overrides:
        key, equals, value = text.partition("=")
        section, dot, name = key.partition(".")
        where = f"override {shown(text)}"
        check_plain({key: value}, where)
        if not (equals and dot and name):
            raise InputError(f"{where}: overrides are written section.key=value, such as train.epochs=10")
        fields = [f for k, f in _KEYS if k == key]
        if not fields:
            raise InputError(f"{where}: {_unknown(key)}")
        is_tag = name == _VARIANT_KEYS.get(section)
        layers.append((where, {section: {name: value if is_tag else _typed(value, fields, where, key)}}))
    return sorted(layers, key=lambda layer: not _has_tag(layer[1]))  # a later choice of variant would drop overrides


def _has_tag(layer: dict[str, Any]) -> bool:
    return any(_VARIANT_KEYS.get(section) in values for section, values in layer.items())


def _typed(text: str, fields: list[FieldInfo], where: str, key: str) -> Any:
    """Parse an override: unchanged for a string key, else as YAML, or as text if no field of that name takes it."""
    if any(str in (f.annotation, *get_args(f.annotation)) and float not in get_args(f.annotation) for f in fields):
        return None if text == "null" else text
    try:
        parsed = parse(text, where)
        check_plain({key: parsed}, where)
    except InputError:
        parsed = text
    error: ValidationError | None = None
    for value in (parsed, text):
        for field in fields:
            annotation = Annotated[field.annotation, field]  # type: ignore[name-defined]
            try:
                TypeAdapter(annotation).validate_json(_as_json(value), strict=True)
            except ValidationError as e:
                error = error or e
            else:
                return value
    assert error is not None
    raise InputError(f"{where}: {key}: {_reason(min(error.errors(), key=_asks_for_a_word))}")


def _validated(layers: list[Layer]) -> Recipe:
    merged: dict[str, Any] = {}
    for _, layer in layers:
        _merge(merged, layer)
    for section, tag in _VARIANT_KEYS.items():
        if isinstance(merged.setdefault(section, {}), dict):
            merged[section].setdefault(tag, _VARIANT_DEFAULTS[section])
    try:
        # Strict mode accepts a list for a tuple only from JSON; it still refuses "90" for a number.
        return Recipe.model_validate_json(_as_json(merged), strict=True)
    except ValidationError as error:
        problems = error.errors()
    problems.sort(key=lambda p: (p["type"] != "extra_forbidden", _asks_for_a_word(p)))
    path = _path_in(merged, problems[0])
    files = [w for w, _ in layers if not w.startswith("override ")]
    where = next((w for w, layer in reversed(layers) if _has(layer, path)), files[-1])
    more = len({_path_in(merged, p) for p in problems}) - 1
    message = _problem(path, problems[0])
    raise InputError(f"{where}: {message}" + (f" (and {more} more)" if more else ""))


def _merge(into: dict[str, Any], layer: Mapping[str, Any]) -> None:
    for section, values in layer.items():
        if not isinstance(values, dict) or not isinstance(into.get(section), dict):
            into[section] = dict(values) if isinstance(values, dict) else values
            continue
        tag = _VARIANT_KEYS.get(section)
        if tag and tag in values:
            own = _variant_keys(section, tag, values[tag])
            into[section] = {k: v for k, v in into[section].items() if k in own}
        into[section].update(values)


def _variant_keys(section: str, tag: str, value: object) -> set[str]:
    """Return the keys of the variant of `section` that the tag's `value` selects, or of all if it selects none."""
    variants = _variants(Recipe.model_fields[section])
    chosen = [v for v in variants if value in get_args(v.model_fields[tag].annotation)] or variants
    return {key for v in chosen for key in v.model_fields}


def _as_json(value: Any) -> str:
    return json.dumps(value, default=str)


def _path_in(data: Any, problem: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the recipe path of a pydantic error: its location without the names of union members."""
    path: list[str] = []
    for i, part in enumerate(problem["loc"]):
        last = i == len(problem["loc"]) - 1
        if isinstance(data, dict) and (part in data or (last and problem["type"] == "missing")):
            data = data.get(part)
        elif isinstance(data, list) and isinstance(part, int) and part < len(data):
            data = data[part]
        else:
            continue
        path.append(str(part))
    return tuple(path)


def _has(data: Any, path: tuple[str, ...]) -> bool:
    for part in path:
        if not isinstance(data, dict) or part not in data:
            return isinstance(data, list)
        data = data[part]
    return bool(path)


def _problem(path: tuple[str, ...], problem: Mapping[str, Any]) -> str:
    key = ".".join(path)
    if problem["type"] == "extra_forbidden":
        return _unknown(key)
    if problem["type"] == "union_tag_invalid":
        key = f"{key}.{_VARIANT_KEYS[key]}"
    return f"{key}: {_reason(problem)}" if key else _reason(problem)


def _unknown(key: str) -> str:
    known = [k for k, _ in _KEYS] + list(Recipe.model_fields)
    if key in known:
        section = key.partition(".")[0]
        return f"{key} does not belong to the chosen {section}.{_VARIANT_KEYS[section]}; remove it or change that"
    leaf = key.rpartition(".")[2]
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.6) or [k for k in known if k.endswith("." + leaf)]
    hint = f"did you mean {near[0]}?" if near else f"sections are {', '.join(Recipe.model_fields)}"
    return f"unknown key {key[:120]}; {hint}"


def _asks_for_a_word(problem: Mapping[str, Any]) -> bool:
    """Return whether a number is refused where a word may stand as well, such as auto; its range says more."""
    return problem["type"] == "literal_error" and isinstance(problem.get("input"), (int, float))


def _reason(problem: Mapping[str, Any]) -> str:
    """Describe a pydantic error in one clause, with the offending value."""
    if problem["type"] == "missing":
        few = isinstance(problem["loc"][-1], int)
        return "has too few values" if few else "is missing; state it in the recipe"
    if problem["type"] == "union_tag_invalid":
        return f"should be one of {problem['ctx']['expected_tags']}, not {shown(problem['ctx']['tag'])}"
    message: str = problem["msg"].removeprefix("Value error, ")
    message = message[0].lower() + message[1:]
    given = problem.get("input")
    if problem["type"] == "value_error" and isinstance(given, dict):
        return message  # a validator of several keys names them itself
    return f"{message}, not {shown(given)}"


def _flatten(data: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in data.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _variants(field: FieldInfo) -> list[type[Section]]:
    """Return the section classes that a field of Recipe may hold."""
    annotation = field.annotation
    members = get_args(annotation) if get_origin(annotation) is not None else (annotation,)
    return [m for m in members if isinstance(m, type) and issubclass(m, Section)]


_KEYS: list[tuple[str, FieldInfo]] = [
    (f"{section}.{name}", inner)
    for section, field in Recipe.model_fields.items()
    for variant in _variants(field)
    for name, inner in variant.model_fields.items()
]
_VARIANT_KEYS: dict[str, str] = {
    section: str(field.discriminator) for section, field in Recipe.model_fields.items() if field.discriminator
}
_VARIANT_DEFAULTS: dict[str, str] = {
    section: getattr(Recipe.model_fields[section].default, key) for section, key in _VARIANT_KEYS.items()
}
