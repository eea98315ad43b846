"""Which images an evaluation recognised, from its predictions.csv. Imports no torch."""

from __future__ import annotations

import csv
import hashlib
import io
import operator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from resnext_train.errors import InputError
from resnext_train.regular_file import read_regular

_MAX_BYTES = 1 << 32
"""Limit of a file: that of 50,000 images has 10 MB."""


@dataclass(frozen=True)
class Recognised:
    """Images and whether each was recognised, in the order of their paths."""

    images: str
    """A digest of all paths with their labels: equal for the same images with the same labels, in any order."""
    is_correct: NDArray[np.bool_]
    """(images,): whether the predicted class is the image's label, or one of several."""


def read_recognised(path: Path) -> Recognised:
    """Read a file of predictions.

    Raises:
        InputError: it cannot be read, is no such file, or has two lines for an image.
    """
    try:
        content = read_regular(path, _MAX_BYTES)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error
    if not content.startswith(b"path,label,rank,") or not content.endswith(b"\n"):
        raise InputError(f"{path} is no file of predictions, or its end is missing; run `resnext eval --out` again")
    try:
        paths, labels, ranks = _columns(content)
    except (ValueError, csv.Error) as error:
        raise InputError(f"{path} has a line that is no prediction; run `resnext eval --out` again") from error
    if any(map(operator.eq, paths, paths[1:])):
        raise InputError(f"{path} has two lines for an image, so that its lines are no images")
    digest = hashlib.sha256(b"\n".join((*paths, *labels)))
    return Recognised(digest.hexdigest(), np.array(ranks, np.bytes_) == b"1")


def _columns(content: bytes) -> tuple[list[bytes], list[bytes], list[bytes]]:
    """Return paths, labels and ranks, ordered by path; raises ValueError where a line lacks them."""
    rows: list[list[bytes]]
    if b'"' not in content:  # most files: ten times as fast as csv, and lines are in the order of their paths
        rows = [line.split(b",", 3) for line in sorted(content.split(b"\n")[1:-1])]
    else:
        read = csv.reader(io.StringIO(content.decode(), newline=""))
        rows = [[field.encode() for field in row[:4]] for row in read][1:]
        rows.sort(key=lambda row: row[0] + b",")
    if not rows:
        return [], [], []
    paths, labels, ranks, _ = map(list, zip(*rows, strict=True))
    if not all(map(bytes.isdigit, ranks)) or any(len(row) != 4 for row in rows):
        raise ValueError("no rank")
    return paths, labels, ranks
