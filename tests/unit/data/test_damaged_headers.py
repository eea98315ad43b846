"""JPEGs with restart markers whose scan header is cut, in folders and packs: bad images, as others are."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import pytest
import torch
from PIL import Image

from helpers.packs import JPEGTRAN, needs_jpegtran, packed
from resnext_train.config import load_recipe
from resnext_train.data.build_loaders import build_eval_loader, build_train_loader
from resnext_train.data.build_sources import build_splits
from resnext_train.data.image_batch import ImageBatch
from resnext_train.data.pack.pack_index import PackIndex
from resnext_train.data.sampler import StepPlan
from resnext_train.distributed.dist_context import DistContext
from resnext_train.distributed.rank import Rank
from resnext_train.errors import LocalInputError
from resnext_train.prepare.image_splits import FolderSplit
from resnext_train.prepare.pack_records import Tier

TIERS = {
    "exact": Tier("exact", None, None, JPEGTRAN),
    "resized": Tier("resized", 24, 92, JPEGTRAN),
    "raw": Tier("raw", 24, None, None),
}


def cut_in_scan_header() -> bytes:
    file = io.BytesIO()
    Image.linear_gradient("L").resize((48, 40)).convert("RGB").save(file, "JPEG", restart_marker_blocks=1)
    data = file.getvalue()
    return data[: data.index(b"\xff\xda") + 9]


def missing(root: Path, *overrides: str) -> tuple[int, int]:
    """How many images training and evaluation could not read, an epoch each."""
    where = [f"data.root={root}", "data.workers=0", "augment.size=32", "eval.batch_size=4"]
    recipe = load_recipe("resnet18.yaml", [*where, "train.batch_size=8", "train.micro_batch=4", *overrides])
    splits, one = build_splits(recipe.data), DistContext(Rank(), torch.device("cpu"))
    plan = StepPlan(len(splits.train), 8, 2)
    trained: list[ImageBatch] = list(
        build_train_loader(recipe, splits.train, plan, one, range(plan.steps_per_epoch), print)
    )
    evaluated = list(build_eval_loader(recipe, splits.val, one, print))
    return sum(batch.report.missing for batch in trained), sum(batch.report.missing for batch in evaluated)


@pytest.mark.parametrize("form", ["folder", *TIERS])
def test_a_cut_scan_header_is_a_bad_image(form: str, image_root: Path) -> None:
    for name in ("train/dog/5.JPEG", "val/cat/1.JPEG"):
        (image_root / name).write_bytes(cut_in_scan_header())
    root = image_root
    if form != "folder":
        root = image_root.parent / form
        for split in ("train", "val"):
            packed(FolderSplit(image_root / split), root / split, TIERS[form])
    with pytest.raises(LocalInputError, match=r"dog/5\.JPEG "):
        missing(root)
    assert missing(root, "data.on_bad_image=skip") == (1, 1)


@needs_jpegtran
def test_a_scan_header_damaged_on_the_disk_of_a_pack(image_root: Path) -> None:
    root = image_root.parent / "exact"
    for split in ("train", "val"):
        packed(FolderSplit(image_root / split), root / split, TIERS["exact"])
        index = PackIndex(root / split)
        record = index.read(1)
        struct.pack_into(">H", record, record.index(b"\xff\xda") + 2, 0xFFFF)
        with (root / split / "shard-00000.bin").open("r+b") as shard:
            shard.seek(int(index.offset[1]))
            shard.write(record)
    assert missing(root, "data.on_bad_image=skip") == (1, 1)
