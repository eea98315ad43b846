"""How papers and public code train, in the terms of a recipe: a YAML file each, in references/. Imports no torch.

A file has

    title    what it is called in a sentence: "the ResNeXt paper's code"
    about    where it is to be found
    base     another file, whose statements hold where this one makes none; _plain.yaml where it names none
    images   training images of its data, by which steps are counted
    stated   groups of statements with one `source`: recipe sections with the values that would train in the same way,
             and `code` with those of points that no recipe key says (code_points.py); `effect`, if known
    silent   what `base` states and this source leaves open
    notes    remarks that no comparison can compute
    variants by name: the same keys, for what differs between the source's recipes; `extends` names a variant that holds
             where this one states nothing. rsb/a2 is variant a2 of rsb.yaml

Values may be fractions, such as 4/3, and words that no recipe takes, such as "asynchronous": these always differ.
"""

from __future__ import annotations

import difflib
import functools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from resnext_train.config.yaml_reader import read_yaml

Value = None | bool | int | float | str | list["Value"]
"""A value of a recipe or of a point of the code, as plain types."""

CODE = "code"
"""The section of points that no recipe key says."""

_FOLDER = Path(__file__).parent / "references"
_PLAIN = "_plain"
_FRACTION = re.compile(r"(\d+(?:\.\d+)?)/(\d+(?:\.\d+)?)")
_EXCLUSIVE = {
    "optimizer.lr": "optimizer.lr_per_256",
    "optimizer.lr_per_256": "optimizer.lr",
    "eval.resize": "eval.crop_ratio",
    "eval.crop_ratio": "eval.resize",
}
"""Keys that stand for each other: a statement of one takes the place of a base's of the other."""


@dataclass(frozen=True)
class Statement:
    """What a source does in one point."""

    value: Value
    source: str
    """Section of the paper, or file and line of the code."""
    effect: str = ""
    """What is known of the difference to our way."""


@dataclass(frozen=True)
class Reference:
    """How a paper or its code trains."""

    name: str
    title: str
    about: str
    images: int | None
    """Training images of its data."""
    stated: Mapping[str, Statement]
    """By recipe key, such as train.epochs, and by point of the code, such as code.resize_antialias."""
    notes: tuple[str, ...]

    @property
    def values(self) -> dict[str, Value]:
        """What is stated, without its sources."""
        return {key: statement.value for key, statement in self.stated.items()}


def check_reference(name: str | None) -> str | None:
    """Return `name`; raise ValueError, which names the nearest ones, if there is no such reference."""
    if name is None or _exists(name):
        return name
    known = reference_names()
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5) or known
    raise ValueError(f"there is no such reference; did you mean {' or '.join(near)}?")


def _exists(name: str) -> bool:
    file, slash, variant = name.partition("/")
    if not re.fullmatch(r"[a-z0-9][a-z0-9_]*", file) or not (_FOLDER / f"{file}.yaml").is_file():
        return False
    return not slash or variant in _content(file).get("variants", {})


def reference_names() -> list[str]:
    """Return the names of all references and of their variants, sorted."""
    files = sorted(path.stem for path in _FOLDER.glob("[!_]*.yaml"))
    return [name for file in files for name in (file, *(f"{file}/{v}" for v in _content(file).get("variants", {})))]


@functools.cache
def find_reference(name: str) -> Reference:
    """Return the reference `name`, which exists (see `check_reference`), with all that its bases state."""
    file, _, variant = name.partition("/")
    content = _content(file)
    below = None if file == _PLAIN else find_reference(content.get("base", _PLAIN))
    layers = [content, *_variant(content["variants"], variant)] if variant else [content]
    stated = dict(below.stated) if below else {}
    for layer in layers:
        for key in layer.get("silent", ()):
            stated.pop(key)
        _state(stated, _statements(layer))
    title, about, images = (_last(layers, key) for key in ("title", "about", "images"))
    notes = _last(layers, "notes")
    return Reference(
        name,
        title or (below.title if below else ""),
        about or (below.about if below else ""),
        images or (below.images if below else None),
        stated,
        (below.notes if below else ()) if notes is None else tuple(notes),
    )


@functools.cache
def _content(file: str) -> dict[str, Any]:
    return read_yaml(_FOLDER / f"{file}.yaml")


def _variant(variants: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    """Return a variant after the one that it extends."""
    below = variants[name].get("extends")
    return [*([variants[below]] if below else []), variants[name]]


def _last(layers: list[dict[str, Any]], key: str) -> Any:
    return next((layer[key] for layer in reversed(layers) if key in layer), None)


def _state(stated: dict[str, Statement], more: Iterator[tuple[str, Statement]]) -> None:
    for key, statement in more:
        if key in _EXCLUSIVE:
            stated.pop(_EXCLUSIVE[key], None)
        stated[key] = statement


def _statements(layer: Mapping[str, Any]) -> Iterator[tuple[str, Statement]]:
    for group in layer.get("stated", ()):
        source, effect = group["source"], group.get("effect", "")
        for section, values in group.items():
            if section not in ("source", "effect"):
                for key, value in values.items():
                    yield f"{section}.{key}", Statement(_number(value), source, effect)


def _number(value: Any) -> Value:
    """Return a value of YAML with its fractions as numbers."""
    if isinstance(value, list):
        return [_number(part) for part in value]
    if isinstance(value, str) and (parts := _FRACTION.fullmatch(value)):
        return float(parts[1]) / float(parts[2])
    plain: Value = value
    return plain
