"""Packs made in this process, for tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from resnext_train.data.pack.pack_format import COLUMNS
from resnext_train.data.pack.pack_index import PackIndex
from resnext_train.prepare.image_splits import Split
from resnext_train.prepare.pack_records import Tier, find_jpegtran
from resnext_train.prepare.pack_split import Outcome, pack_split

JPEGTRAN = find_jpegtran()

needs_jpegtran = pytest.mark.skipif(JPEGTRAN is None, reason="needs jpegtran (libjpeg-turbo)")

EXACT = Tier("exact", None, None, JPEGTRAN)
RESIZED = Tier("resized", 24, 92, JPEGTRAN)
RAW = Tier("raw", 24, None, None)


def packed(split: Split, folder: Path, tier: Tier = EXACT) -> Outcome:
    """The pack of `split` in `folder`, made by this process."""
    outcome = pack_split(split, folder, tier, 1, 1, lambda _: None)
    assert outcome is not None
    return outcome


def content(folder: Path) -> list[object]:
    """All that a pack holds but its random id: what two packs of the same images share."""
    index = PackIndex(folder)
    header = index.header._asdict()
    header.pop("id")
    columns = [getattr(index, name).tobytes() for name in COLUMNS if name != "name_ends"]
    images = range(len(index))
    return [header, columns, [index.name(i) for i in images], [bytes(index.read(i)) for i in images]]
