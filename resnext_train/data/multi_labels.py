"""Several correct classes per image, as ImageNet-ReaL has (arXiv 2006.07159). Imports no torch."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resnext_train.data.class_titles import imagenet_wnids, timm_file
from resnext_train.errors import InputError, MissingLibraryError
from resnext_train.regular_file import read_regular, user_path

_MAX_BYTES = 200_000_000
"""Largest file of labels. ImageNet-ReaL's has less than 1 MB for 50,000 images."""

REAL = "imagenet-real"
"""The word for ImageNet-ReaL's labels as timm has them."""

_VALIDATION_IMAGE = re.compile(r"ILSVRC2012_val_(\d{8})(?!\d)")

_Labels = Sequence[int]


def read_multi_labels(
    file: str,
    name: Callable[[int], str],
    count: int,
    classes: Sequence[str],
    network_classes: Sequence[str] | None = None,
    key: str = "eval.labels",
) -> NDArray[np.int64]:
    """Return the correct classes of each of `count` images: (images, L), positions in `classes`, filled up with -1.

    An image with -1 alone has no label among `classes`; ReaL leaves such images out. `name` returns an image's name,
    such as its path. `file`, which `key` named, is one of

    - the word imagenet-real, for ReaL's labels in timm;
    - a file in ReaL's own format, a JSON list: entry i has the class numbers of ILSVRC2012_val_{i + 1:08d} in
      ImageNet-1K. They stand for WordNet IDs, and `classes` are found by these, whatever their order;
    - a JSON object of image: [classes]. An image is its path, as much of its end as tells it from others, with or
      without the suffix; a class is its name, or its number among `network_classes` (None: `classes`).

    Classes of ImageNet-1K or the network that are not among `classes` are left out.

    Raises:
        InputError: `file` is no such file, lacks an image, names an unknown class, or no image keeps a label; or timm
            is not installed (MissingLibraryError).
    """
    path = _timm_real(key) if file == REAL else user_path(file)
    what = f"{key}: {file if file == REAL else path}"
    content = _read_json(path, what)
    if isinstance(content, list):
        labels = _real_labels(content, name, count, classes, what)
    elif isinstance(content, dict):
        labels = _named_labels(content, name, count, (classes, network_classes or classes), what)
    else:
        raise InputError(f"{what} has neither a JSON list, as ImageNet-ReaL, nor an object of image: [classes]")
    return _padded(labels, count, what)


def _timm_real(key: str) -> Path:
    path = timm_file("imagenet_real_labels.json")
    if path is None:
        raise MissingLibraryError(
            f"{key}: {REAL} needs the library timm, which is not installed; pip install 'resnext-train[timm]', or give "
            "ImageNet-ReaL's file real.json"
        )
    return path


def _read_json(path: Path, what: str) -> Any:
    try:
        return json.loads(read_regular(path, _MAX_BYTES), object_pairs_hook=_no_name_twice)
    except FileNotFoundError as error:
        raise InputError(f"{what} not found; give a file of labels, or the word {REAL}") from error
    except OSError as error:
        raise InputError(f"{what} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{what} is no JSON: {error}") from error


def _no_name_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise ValueError(f"it has {twice} more than once")
    return content


def _real_labels(
    content: list[Any], name: Callable[[int], str], count: int, classes: Sequence[str], what: str
) -> Iterator[_Labels]:
    """Yield the labels of each image from ReaL's list."""
    position = {wnid: i for i, wnid in enumerate(classes)}
    positions = [position.get(wnid, -1) for wnid in imagenet_wnids()]
    if max(positions) < 0:
        raise InputError(
            f"{what} has labels of ImageNet-1K, and none of its classes is here, where {classes[0]} is one"
        )
    for i in range(count):
        numbers = _VALIDATION_IMAGE.findall(name(i))
        if not numbers:
            raise InputError(f"{what} has labels of images ILSVRC2012_val_00000001 and so on, not of {name(i)}")
        entry = int(numbers[-1]) - 1
        if not 0 <= entry < len(content):
            raise InputError(f"{what} has labels of {len(content)} images, without {name(i)}")
        yield [positions[_number(label, 1000, name(i), what)] for label in _listed(content[entry], name(i), what)]


def _named_labels(
    content: dict[str, Any],
    name: Callable[[int], str],
    count: int,
    classes: tuple[Sequence[str], Sequence[str]],
    what: str,
) -> Iterator[_Labels]:
    """Yield the labels of each image from an object; `classes`: those that count, and all."""
    position = {class_name: i for i, class_name in enumerate(classes[0])}
    positions = [position.get(class_name, -1) for class_name in classes[1]]
    left_out = dict.fromkeys((*imagenet_wnids(), *classes[1]), -1)
    owners: dict[str, int] = {}
    for i in range(count):
        image = next((end for end in _ends(name(i)) if end in content), None)
        if image is None:
            raise InputError(f"{what} has no labels of {name(i)}")
        if owners.setdefault(image, i) != i:
            raise InputError(f"{what}: {image} may be {name(owners[image])} or {name(i)}; give more of the path")
        labels = []
        for label in _listed(content[image], image, what):
            if isinstance(label, str):
                if label not in position and label not in left_out:
                    raise InputError(f"{what}: {image} has the unknown class {label}")
                labels.append(position.get(label, -1))
            else:
                labels.append(positions[_number(label, len(positions), image, what)])
        yield labels


def _ends(path: str) -> Iterator[str]:
    """Yield what may stand for an image: its name, then ever less of its path, each with and without its suffix.

    An image in a pack is called "PACK: PATH", see `PackedImages.name`.
    """
    yield path
    parts = PurePath(path.rpartition(": ")[2] or path).parts
    for first in range(len(parts)):
        end = os.path.join(*parts[first:])  # noqa: PTH118  parts of a name, which may be none of a file
        yield end
        yield os.path.splitext(end)[0]  # noqa: PTH122


def _listed(labels: Any, image: str, what: str) -> list[Any]:
    if not isinstance(labels, list):
        raise InputError(f"{what}: the labels of {image} are no list")
    return labels


def _number(label: Any, classes: int, image: str, what: str) -> int:
    if type(label) is not int or not 0 <= label < classes:
        raise InputError(f"{what}: {image} has the unknown class {label!r}; class numbers are 0 to {classes - 1}")
    return label


def _padded(labels: Iterator[_Labels], count: int, what: str) -> NDArray[np.int64]:
    kept = [np.array(list(dict.fromkeys(label for label in of if label >= 0)), np.int64) for of in labels]
    longest = max(map(len, kept), default=0)
    if not longest:
        raise InputError(f"{what} has no image with a label among the classes")
    padded = np.full((count, longest), -1, np.int64)
    for row, label_row in zip(padded, kept, strict=True):
        row[: len(label_row)] = label_row
    return padded
