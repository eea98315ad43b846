"""What is wrong in a recipe: each mistake with file, line and key, a user's own first. Imports no torch."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from pydantic_core import ErrorDetails

from resnext_train.config.recipe_keys import TAGS, unknown_key, variant_keys
from resnext_train.config.yaml_reader import line_of, shown
from resnext_train.errors import InputError

_MOST, _LONGEST = 12, 400
"""Limits of what is listed: mistakes, and characters of each."""

_KEY_IN_TEXT = re.compile(r"\b([a-z_]+\.[a-z_0-9]+)\b")

_Path = tuple[str | int, ...]
"""Section, key, and position in a list, as far as given."""


class Layer(NamedTuple):
    """Values that a recipe is made of, and where they are from."""

    where: str
    """A file, or an override."""
    values: dict[str, Any]
    text: str = ""
    """The file's content."""


class Mistake(NamedTuple):
    """Something to correct in a layer."""

    where: str
    line: int | None
    text: str

    @classmethod
    def at(cls, layer: Layer, path: _Path, text: str) -> Mistake:
        """Return the mistake `text` at the place `path` of a layer."""
        return cls(layer.where, line_of(layer.text, path) if layer.text else None, text)

    def __str__(self) -> str:
        place = self.where if self.line is None else f"{self.where}, line {self.line}"
        return f"{place}: {self.text}"[:_LONGEST]


def refuse(mistakes: Sequence[Mistake]) -> None:
    """Raise InputError if there are mistakes: a sentence for one; for more a line for each, in their order."""
    lines = list(dict.fromkeys(map(str, mistakes)))
    if not lines:
        return
    if len(lines) == 1:
        raise InputError(lines[0])
    more = [f"and {len(lines) - _MOST} more"] if len(lines) > _MOST else []
    raise InputError(f"the recipe has {len(lines)} mistakes", *lines[:_MOST], *more)


def mistakes_in(errors: Sequence[ErrorDetails], merged: Mapping[str, Any], layers: Sequence[Layer]) -> list[Mistake]:
    """Return the mistakes behind pydantic's `errors` in the `merged` layers."""
    found = []
    by_path: dict[_Path, list[ErrorDetails]] = {}
    for error in errors:
        by_path.setdefault(_path_of(error, merged), []).append(error)
    for path, same in by_path.items():
        error = min(same, key=asks_for_a_word)  # of the members of a union
        texts = {path: _text(path, same, merged)}
        if error["type"] == "union_tag_invalid":  # so the section's other keys were not looked at
            section = str(path[0])
            unknown = [(section, key) for key in merged[section] if key not in variant_keys(section)]
            texts |= {other: unknown_key(".".join(other), merged) for other in unknown}
        for place, text in texts.items():
            rank, place = _origin(place, text, layers)
            found.append(Mistake.at(layers[rank], place, text))
    return found


def mistake_at(key: str, layers: Sequence[Layer], text: str = "") -> Mistake:
    """Return the mistake `text` about `section.key`, in the strongest layer that sets it."""
    rank, path = _origin(tuple(key.split(".")), text, layers)
    return Mistake.at(layers[rank], path, text)


def _path_of(error: ErrorDetails, merged: Mapping[str, Any]) -> _Path:
    """Return the place in a recipe that an error is about, without the names of union members in its location."""
    section, *rest = error["loc"] or ("",)
    if section in TAGS and rest:
        rest = rest[1:]  # the variant's tag, which may be called like a key
    held = merged.get(str(section))
    if not rest or not isinstance(held, Mapping):
        if error["type"] == "union_tag_invalid":
            return section, TAGS[str(section)]
        return (section,) if section else ()
    indices = []
    for part in rest[1:]:
        if not isinstance(part, int):
            break
        indices.append(part)
    return (section, rest[0], *indices)


def _origin(path: _Path, text: str, layers: Sequence[Layer]) -> tuple[int, _Path]:
    """Return the strongest layer that sets what a mistake is about, and the path of it there.

    A mistake of several keys, which its text names, is in the strongest layer that sets one of them. What no layer sets
    is missing in the recipe itself: the last layer that is a file.
    """
    for rank, layer in enumerate(layers):
        if path and not isinstance(layer.values.get(str(path[0]), {}), Mapping):
            return rank, path[:1]  # it is no section, and so hides what stronger layers set in it
    named: list[_Path] = [tuple(key.split(".")) for key in _KEY_IN_TEXT.findall(text)] if len(path) == 1 else []
    for wanted in (named, [path[:2]], [path[:1]]):
        for rank in reversed(range(len(layers))):
            for candidate in wanted:
                if candidate and _has(layers[rank].values, candidate):
                    return rank, path if candidate == path[:2] else candidate
    own = [rank for rank, layer in enumerate(layers) if not layer.where.startswith("override ")]
    return own[-1], path[:1]


def _has(data: object, path: _Path) -> bool:
    for part in path:
        if not isinstance(data, Mapping) or part not in data:
            return False
        data = data[part]
    return True


def _text(path: _Path, errors: Sequence[ErrorDetails], merged: Mapping[str, Any]) -> str:
    key = ".".join(map(str, path[:2]))
    if errors[0]["type"] == "extra_forbidden":
        return unknown_key(key, merged)
    why = reason(errors)
    return why if not key or why.startswith(f"{key}.") else f"{key}: {why}"


def reason(errors: Sequence[ErrorDetails]) -> str:
    """Describe in one clause why no member of a union takes a value, or its only type does not."""
    error = min(errors, key=asks_for_a_word)
    others = [other for other in errors if other["type"] != "literal_error"]
    if error["type"] != "literal_error" or not others:
        return _reason(error)
    number = others[0]["msg"].removeprefix("Input ").partition(",")[0]
    return f"input {number} or {error['ctx']['expected']}, not {shown(error.get('input'))}"


def asks_for_a_word(error: ErrorDetails) -> bool:
    """Return whether a number is refused where a word may stand as well, such as auto; its range says more."""
    return error["type"] == "literal_error" and isinstance(error.get("input"), (int, float))


_PLAIN = {
    "model_type": "should be a section, which holds keys",
    "model_attributes_type": "should be a section, which holds keys",
    "dict_type": "should hold names and values, as in {name: value}",
    "tuple_type": "should be a list, as in [1, 2]",
}
"""What is said in place of pydantic's words, which are JSON's."""


def _reason(error: ErrorDetails) -> str:
    """Describe a pydantic error in one clause, with the offending value."""
    if text := _PLAIN.get(error["type"]):
        return f"{text}, not {shown(error.get('input'))}"
    if error["type"] == "missing":
        few = isinstance(error["loc"][-1], int)
        return "has too few values" if few else "is missing; state it in the recipe"
    if error["type"] == "union_tag_invalid":
        return f"should be one of {error['ctx']['expected_tags']}, not {shown(error['ctx']['tag'])}"
    message = error["msg"].removeprefix("Value error, ")
    message = message[0].lower() + message[1:]
    given = error.get("input")
    if error["type"] == "value_error" and isinstance(given, dict):
        return message  # a validator of several keys names them itself
    return f"{message}, not {shown(given)}"
