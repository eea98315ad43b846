"""From YAML to plain values of a bounded number: no code is run, and no text takes long to refuse."""

from __future__ import annotations

import datetime
import re
import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from resnext_train.errors import InputError

_BYTES, _VALUES, _LEVELS, _CHARACTERS = 100_000, 10_000, 20, 4096
"""What no recipe exceeds: of a file, of values in it, of values within values, of a text (the longest path)."""

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 120


def shown(value: object) -> str:
    """`value` as Python writes it, cut where it is long."""
    return _SHORT.repr(value)


class _Loader(yaml.SafeLoader):
    """SafeLoader that reads 1e-4 as a number (YAML 1.1 wants 1.0e-4); a key must be text and not given twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for part, _ in node.value:
            key = self.construct_object(part, deep=True)  # type: ignore[no-untyped-call]
            if not isinstance(key, str):
                raise yaml.constructor.ConstructorError(None, None, f"key {shown(key)} is no text", part.start_mark)
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key {key!r} is given twice", node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(  # type: ignore[no-untyped-call]
    "tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+"), list("-+0123456789")
)


def parse(text: str, where: str) -> Any:
    """What `text` says in YAML; raises InputError where it is none."""
    try:
        return yaml.load(text, _Loader)  # a SafeLoader: runs no code
    except Exception as error:  # besides YAMLError: of `!!bool x` KeyError, of `!!int ''` IndexError, and so on
        told = isinstance(error, (yaml.YAMLError, ValueError))
        nested = isinstance(error, RecursionError)
        why = " ".join(str(error).split()) if told else "nested too deeply" if nested else repr(error)
        raise InputError(f"{where}: not valid YAML: {why[:300]}") from error


def read_yaml(path: Path) -> dict[str, Any]:
    """The sections in a recipe's file.

    Raises:
        InputError: it cannot be read, is no YAML, or holds what no recipe does.
    """
    try:
        with path.open("rb") as file:
            content = file.read(_BYTES + 1)
        if len(content) > _BYTES:
            raise InputError(f"{path}: over {_BYTES:,} bytes are no recipe")
        text = content.decode()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read: {error}") from error
    data = parse(text, str(path))
    if not isinstance(data, dict):
        raise InputError(f"{path}: a recipe is a mapping of sections such as 'model:' and 'train:'")
    check_plain(data, str(path))
    return data


def check_plain(data: Mapping[str, Any], where: str) -> None:
    """Refuse what is no tree of plain values of a recipe's size: aliases to aliases, a value that holds itself.

    Raises:
        InputError: it is none; says why, and `where`.
    """
    rest: list[tuple[Any, int]] = [(data, 0)]
    count = 0
    while rest:
        value, level = rest.pop()
        count += 1
        if count > _VALUES or level > _LEVELS:
            raise InputError(f"{where}: more than {_VALUES:,} values, or {_LEVELS} within one another, are no recipe")
        if problem := _problem(value):
            raise InputError(f"{where}: {problem}")
        if isinstance(value, Mapping):
            rest += [(part, level + 1) for item in value.items() for part in item]
        elif isinstance(value, (list, tuple)):
            rest += [(part, level + 1) for part in value]


def _problem(value: object) -> str:
    """What is wrong with a value by itself, of those that YAML and checkpoints may hold; "" where nothing is."""
    if isinstance(value, str):
        if len(value) > _CHARACTERS:
            return f"{shown(value)} has over {_CHARACTERS:,} characters"
        return "" if _is_unicode(value) else f"{shown(value)} is no text in UTF-8"
    if isinstance(value, int):
        return "" if abs(value) < 2**64 else "a number has over 64 bits"
    if isinstance(value, Mapping):
        return next((f"key {shown(key)} is no text" for key in value if not isinstance(key, str)), "")
    if value is None or isinstance(value, (float, list, tuple, datetime.date)):
        return ""
    return f"a value is of type {type(value).__name__}, which no key takes"


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
