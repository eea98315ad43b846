"""Read YAML as a bounded tree of plain values: runs no code, and refuses any text quickly."""

from __future__ import annotations

import copy
import datetime
import functools
import re
import reprlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from resnext_train.errors import InputError
from resnext_train.regular_file import TooLargeFileError, read_regular

_BYTES, _VALUES, _LEVELS, _CHARACTERS = 100_000, 10_000, 20, 4096
"""Limits of a recipe: bytes of the file, number of values, nesting depth, characters of a string (a path's limit)."""

_NO_TEXT = re.compile(r"[\ud800-\udfff\0]")

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 120


def shown(value: object) -> str:
    """Return the repr of `value`, shortened if long."""
    return _SHORT.repr(value)


class _Loader(yaml.SafeLoader):
    """SafeLoader that reads 1e-4 as a number (YAML 1.1 requires 1.0e-4) and refuses duplicate and non-string keys."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for part, _ in node.value:
            key = self.construct_object(part, deep=True)  # type: ignore[no-untyped-call]
            if not isinstance(key, str):
                raise yaml.constructor.ConstructorError(None, None, f"key {shown(key)} is not text", part.start_mark)
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key {key!r} is given twice", part.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(  # type: ignore[no-untyped-call]
    "tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+"), list("-+0123456789")
)


def parse(text: str, where: str) -> Any:
    """Parse `text`; raises InputError if it is not valid YAML."""
    try:
        return yaml.load(text, _Loader)  # a SafeLoader: runs no code
    except Exception as error:  # not only YAMLError: `!!bool x` raises KeyError, `!!int ''` IndexError
        readable = isinstance(error, (yaml.YAMLError, ValueError))
        nested = isinstance(error, RecursionError)
        why = _told(error) if readable else "nested too deeply" if nested else "a value makes no sense"
        raise InputError(f"{where}: not valid YAML: {why[:300]}") from error


def _told(error: Exception) -> str:
    """Return an error of YAML with its line, without the text around it."""
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or str(error)
    return " ".join(f"{f'line {mark.line + 1}: ' if mark else ''}{problem}".split())


def line_of(text: str, path: Sequence[str | int]) -> int | None:
    """Return the line, from 1, of the key or list entry `path` of a YAML mapping; None if it is not there."""
    try:
        node = yaml.compose(text, _Loader)
    except Exception:  # as in parse, which has refused such a text already
        return None
    line = None
    for part in path:
        if isinstance(node, yaml.MappingNode):
            key, node = next(((k, v) for k, v in node.value if k.value == part), (None, None))
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            key = node = node.value[part]
        else:
            break
        if key is None:
            break
        line = key.start_mark.line + 1
    return line


def read_text(path: Path) -> str:
    """Return the text of a recipe's file; raises InputError if it is no file, too large or no text."""
    try:
        return read_regular(path, _BYTES).decode()
    except TooLargeFileError as error:
        raise InputError(f"{path}: a recipe has at most {_BYTES:,} bytes") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: cannot be read: {error}") from error


def read_yaml(path: Path) -> dict[str, Any]:
    """Return the sections in a recipe's file.

    Raises:
        InputError: it cannot be read, is not YAML, exceeds a limit or is not a mapping.
    """
    return parse_sections(read_text(path), str(path))


def parse_sections(text: str, where: str) -> dict[str, Any]:
    """Return the sections in a recipe's text; raises InputError as `read_yaml`."""
    return copy.deepcopy(_sections(text, where))


@functools.lru_cache(maxsize=64)
def _sections(text: str, where: str) -> dict[str, Any]:
    """As `parse_sections`; a text that many recipes build on is parsed once."""
    data = parse(text, where)
    if not isinstance(data, dict):
        raise InputError(f"{where}: a recipe is a mapping of sections such as 'model:' and 'train:'")
    check_plain(data, where)
    return data


def check_plain(data: Mapping[str, Any], where: str) -> None:
    """Refuse data that is not a tree of plain values of a recipe's size, such as nested aliases or cycles.

    Raises:
        InputError: names the reason and `where`.
    """
    rest: list[tuple[Any, int]] = [(data, 0)]
    count = 0
    while rest:
        value, level = rest.pop()
        count += 1
        if count > _VALUES or level > _LEVELS:
            raise InputError(f"{where}: a recipe has at most {_VALUES:,} values in at most {_LEVELS} levels")
        if problem := _problem(value):
            raise InputError(f"{where}: {problem}")
        if isinstance(value, Mapping):
            rest += [(part, level + 1) for item in value.items() for part in item]
        elif isinstance(value, (list, tuple)):
            rest += [(part, level + 1) for part in value]


def _problem(value: object) -> str:
    """Return why a recipe cannot hold `value`, or "". Does not look inside lists and mappings."""
    if isinstance(value, str):
        if len(value) > _CHARACTERS:
            return f"{shown(value)} has over {_CHARACTERS:,} characters"
        return f"{shown(value)} is not text in UTF-8 without zero bytes" if _NO_TEXT.search(value) else ""
    if isinstance(value, int):
        return "" if abs(value) < 2**64 else "a number has over 64 bits"
    if isinstance(value, Mapping):
        return next((f"key {shown(key)} is not text" for key in value if not isinstance(key, str)), "")
    if value is None or isinstance(value, (float, list, tuple, datetime.date)):
        return ""
    return f"a value is of type {type(value).__name__}, which no key accepts"
