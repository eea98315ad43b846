"""Human names of classes, such as "tench, Tinca tinca" for the class n01440764. Imports no torch."""

from __future__ import annotations

import importlib.util
import json
import re
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from resnext_train.errors import InputError, printable
from resnext_train.regular_file import read_regular, user_path

_MAX_BYTES = 50_000_000
"""Largest file of titles. Tiny ImageNet's words.txt, with all 82,115 nouns' synsets of WordNet, has 2.7 MB."""

_WNID = re.compile(r"n\d{8}")

_OWN_FILES = ("titles.txt", "words.txt", "LOC_synset_mapping.txt")
"""Titles that come with data: this project's name for them, Tiny ImageNet's, and that of ImageNet's copy on Kaggle."""

_SHIPPED = Path(__file__).with_name("imagenet_titles.txt")


def find_titles(
    classes: Sequence[str], file: str | None = None, root: Path | None = None, key: str = "data.titles"
) -> tuple[str, ...] | None:
    """Return the titles of `classes`, in their order; None if no title of any is known.

    The first of these that knows any class is used, and a class that it does not know is its own title:

    1. `file`, which `key` named: lines of a class, a tab or spaces, and its title; or a JSON object of titles.
    2. titles.txt, words.txt or LOC_synset_mapping.txt in the data's folder `root`, or the folder above it.
    3. For classes with names like n01440764, timm's list of all of ImageNet's, where timm is installed.
    4. For the same, the list of ImageNet-1K in this package.

    Raises:
        InputError: `file` is not there, is no such file, or knows none of the classes.
    """
    if file is not None:
        return _in_order(classes, _named_titles(user_path(file), classes, key))
    known = _own_titles(root, set(classes)) if root is not None else {}
    if not known and any(map(_WNID.fullmatch, classes)):
        known = _imagenet_titles(set(classes))
    return _in_order(classes, known) if known else None


def short_title(title: str) -> str:
    """Return the first synonym of a title: "tench" of "tench, Tinca tinca"."""
    return title.split(",")[0].strip() or title


def short_titles(classes: Sequence[str], titles: Sequence[str] | None) -> tuple[str, ...]:
    """Return a short title of each class for tables; with its name where others have the same.

    ImageNet has two classes "crane", a bird and a machine: "crane (n02012849)", "crane (n03126707)".
    """
    short = [short_title(title) for title in titles or ()] or list(classes)
    times = Counter(short)
    return tuple(
        title if times[title] == 1 or title == name else f"{title} ({name})"
        for title, name in zip(short, classes, strict=True)
    )


def imagenet_wnids() -> tuple[str, ...]:
    """Return the names of ImageNet-1K's classes, sorted: the position of each is its class number."""
    return tuple(name for name, _ in _lines(_SHIPPED.read_text(encoding="utf-8")))


def timm_file(name: str) -> Path | None:
    """Return one of timm's data files; None if it is not there, or timm is not. Does not import timm, nor torch."""
    spec = importlib.util.find_spec("timm")
    folders = (spec and spec.submodule_search_locations) or ()
    return next((f for folder in folders if (f := Path(folder, "data", "_info", name)).is_file()), None)


def _in_order(classes: Sequence[str], known: dict[str, str]) -> tuple[str, ...]:
    return tuple(known.get(name, name) for name in classes)


def _named_titles(path: Path, classes: Sequence[str], key: str) -> dict[str, str]:
    """Read the file that a user named, every line of which must make sense."""
    try:
        text = read_regular(path, _MAX_BYTES).decode("utf-8-sig")
    except FileNotFoundError as error:
        raise InputError(f"{key}: {path} not found; give a file of class names and their titles") from error
    except OSError as error:
        raise InputError(f"{key}: {path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{key}: {path} is not a text file in UTF-8") from error
    pairs = _json_pairs(text, path, key) if text.lstrip().startswith("{") else list(_lines(text))
    titles: dict[str, str] = {}
    for name, title in pairs:
        if not title:
            raise InputError(f"{key}: {path} has no title for {name}; give a class and its title on each line")
        if titles.setdefault(name, title) != title:
            raise InputError(f"{key}: {path} has two titles for {name}; leave one")
    known = set(classes) & titles.keys()
    if not known:
        raise InputError(f"{key}: {path} has a title for none of the classes, such as {classes[0]}")
    return {name: titles[name] for name in known}


def _json_pairs(text: str, path: Path, key: str) -> list[tuple[str, str]]:
    try:
        pairs = json.loads(text, object_pairs_hook=list)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{key}: {path} is no JSON: {error}") from error
    for name, title in pairs:
        if not isinstance(title, str):
            raise InputError(f"{key}: {path}: the title of {name} is no text; give an object of class: title")
    return [(name, _one_line(title)) for name, title in pairs]


def _own_titles(root: Path, classes: set[str]) -> dict[str, str]:
    """Return titles of `classes` from a file beside the data. Nobody named it, so lines without titles are no error."""
    for path in [folder / name for folder in (root, root.resolve().parent) for name in _OWN_FILES]:
        if not path.is_file():
            continue
        try:
            text = read_regular(path, _MAX_BYTES).decode("utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            warnings.warn(printable(f"{path} cannot be read for titles of classes: {error}"), stacklevel=3)
            continue
        if known := {name: title for name, title in _lines(text) if title and name in classes}:
            return known
    return {}


def _imagenet_titles(classes: set[str]) -> dict[str, str]:
    for path in (timm_file("imagenet_synset_to_lemma.txt"), _SHIPPED):
        if path is not None:
            text = path.read_text(encoding="utf-8")
            if known := {name: title for name, title in _lines(text) if title and name in classes}:
                return known
    return {}


def _lines(text: str) -> Iterator[tuple[str, str]]:
    """Yield the class and the title of each line that is not blank or a comment (#); "" where there is no title."""
    for line in re.split("\r\n|\r|\n", text):  # not splitlines, which also splits at Unicode's line separators
        if line.strip() and not line.startswith("#"):
            name, _, title = line.strip().partition("\t")
            if not title:
                name, _, title = name.partition(" ")
            yield name.strip(), _one_line(title)


def _one_line(title: str) -> str:
    return printable(" ".join(title.split()))
