"""Training and evaluation from packs: the same images in the same order as from the folder."""

from __future__ import annotations

import errno
import json
import os
import pickle
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from helpers.commands import Refuses, evaluate, train
from helpers.evaluation import crops
from helpers.packs import JPEGTRAN, packed
from helpers.runs import events
from resnext_train.config import load_recipe
from resnext_train.data.build_loaders import build_eval_loader, build_train_loader
from resnext_train.data.build_sources import build_splits, open_images
from resnext_train.data.decode.jpeg_header import BadImageError
from resnext_train.data.pack.pack_index import PackIndex
from resnext_train.data.sampler import StepPlan
from resnext_train.data.sources.image_folder import ImageFolder
from resnext_train.data.sources.packed_images import PackedImages
from resnext_train.distributed.dist_context import DistContext
from resnext_train.distributed.rank import Rank
from resnext_train.errors import InputError, LocalInputError
from resnext_train.prepare.image_splits import FolderSplit
from resnext_train.prepare.pack_records import Tier

ONE = DistContext(Rank(), torch.device("cpu"))


TIERS = {
    "exact": Tier("exact", None, None, JPEGTRAN),
    "resized": Tier("resized", 256, 92, JPEGTRAN),
    "raw": Tier("raw", 256, None, None),
    "raw2": Tier("raw", 256, None, None),
}


def pack_of(root: Path, tier: str) -> Path:
    for split in ("train", "val"):
        packed(FolderSplit(root / split), root.parent / tier / split, TIERS[tier])
    return root.parent / tier


def micro_batches(root: Path, workers: int = 0, *options: str) -> list[tuple[Tensor, Tensor]]:
    """Images and labels of an epoch of training micro-batches and of all evaluation batches."""
    where = [f"data.root={root}", f"data.workers={workers}", "augment.size=32", "eval.batch_size=4"]
    recipe = load_recipe("resnet18.yaml", [*where, "train.batch_size=8", "train.micro_batch=4", *options])
    splits = build_splits(recipe.data)
    plan = StepPlan(len(splits.train), 8, 2)
    train = build_train_loader(recipe, splits.train, plan, ONE, range(plan.steps_per_epoch), print)
    trained = [(batch.images.clone(), batch.labels) for batch in train]
    return trained + [(crops(b).clone(), b.labels) for b in build_eval_loader(recipe, splits.val, ONE, print)]


@pytest.mark.parametrize(("tier", "workers"), [("exact", 0), ("exact", 2), ("raw", 0), ("raw", 2)])
def test_micro_batches_from_a_pack_are_those_from_the_folder(image_root: Path, tier: str, workers: int) -> None:
    """Raw too: the images have a short side under 256, so they are kept as they are."""
    for a, b in zip(micro_batches(image_root), micro_batches(pack_of(image_root, tier), workers), strict=True):
        assert torch.equal(a[0], b[0])
        assert torch.equal(a[1], b[1])


@pytest.mark.parametrize("tier", ["exact", "resized", "raw"])
def test_names_labels_and_classes_are_the_folders(image_root: Path, tier: str) -> None:
    folder, pack = ImageFolder(image_root / "train"), open_images(pack_of(image_root, tier) / "train")
    assert isinstance(pack, PackedImages)
    assert pack.classes == folder.classes
    assert pack.labels.tolist() == folder.labels.tolist()
    for i in range(len(folder)):
        assert pack.name(i).endswith(f": {Path(folder.name(i)).relative_to(folder.root)}")
        assert (pack.image(i).height, pack.image(i).width) == (folder.image(i).height, folder.image(i).width)
    again = pickle.loads(pickle.dumps(pack))
    assert torch.equal(again.image(3).region(0, 0, 9, 9), pack.image(3).region(0, 0, 9, 9))


RUN = [
    *("--config", "smoke.yaml", "data.source=folder", "data.workers=0", "augment.size=32", "eval.resize=36"),
    *("eval.crop=32", "eval.batch_size=4", "train.batch_size=8", "train.micro_batch=4", "train.epochs=1"),
    *("model.arch=resnext14_2x4d", "schedule.warmup=0", "log.every=1", "log.to=[]"),
]


@pytest.mark.slow
def test_a_run_from_a_pack_is_the_run_from_the_folder(
    image_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the tier in log, checkpoint and console; and a lossy one said where it is used."""
    torch.set_num_threads(1)
    losses = {}
    for name, root in {
        "folder": image_root,
        "exact": pack_of(image_root, "exact"),
        "resized": pack_of(image_root, "resized"),
    }.items():
        assert train([*RUN, f"data.root={root}", "--out", str(tmp_path / name)]) == 0
        losses[name] = [e["loss"] for e in events(tmp_path / name, "step")]
    assert losses["exact"] == losses["folder"]
    assert " tier exact (lossless)\n" in capsys.readouterr().out
    (start,) = events(tmp_path / "resized", "start")
    lossy = "packed in tier resized (lossy: resized to a short side of at most 256, JPEG quality 92)"
    assert start["images"] == {"train": lossy, "val": lossy}
    state = torch.load(tmp_path / "exact" / "checkpoints" / "last.pt", weights_only=True)
    assert state["images"]["train"] == "packed in tier exact (lossless)"

    # Continued from another tier, that is said
    more = [*RUN, f"data.root={image_root}", "train.epochs=2", "--out", str(tmp_path / "more")]
    assert train([*more, "--resume", str(tmp_path / "exact" / "checkpoints" / "last.pt")]) == 0
    assert re.search(r"^train .*: files; .* tier exact \(lossless\)$", capsys.readouterr().out, re.MULTILINE)

    # A pack is taken wherever a folder is
    exact, found = image_root.parent / "exact", []
    for place in (image_root, image_root / "val", exact, exact / "val"):
        checkpoint = str(tmp_path / "folder" / "checkpoints" / "last.pt")
        assert evaluate(["--ckpt", checkpoint, "--data", str(place), "--json", str(tmp_path / "e.json")]) == 0
        found.append(json.loads((tmp_path / "e.json").read_text())["loss"])
    assert found == [found[0]] * 4


def test_a_damaged_record_is_a_bad_image(image_root: Path, refuses: Refuses, tmp_path: Path) -> None:
    root = pack_of(image_root, "exact")
    shard = root / "train" / "shard-00000.bin"
    data = bytearray(shard.read_bytes())
    data[64:80] = bytes(16)  # the first record's first bytes
    shard.write_bytes(data)
    told = refuses(train, *RUN, f"data.root={root}", "--out", str(tmp_path / "run"))
    assert f"{root / 'train'}: cat/0.JPEG " in told


def test_a_shard_cut_short_and_a_foreign_index_are_refused_before_the_first_step(
    image_root: Path, refuses: Refuses, tmp_path: Path
) -> None:
    root = pack_of(image_root, "exact")
    shutil.copytree(root, tmp_path / "cut")
    shard = tmp_path / "cut" / "train" / "shard-00000.bin"
    size = shard.stat().st_size
    os.truncate(shard, size - 10)
    told = refuses(train, *RUN, f"data.root={tmp_path / 'cut'}", "--dry-run")
    assert all(fact in told for fact in (f" {shard} ", f" {size - 10:,} ", f" {size:,};")), told
    shutil.copy(root / "val" / "index.bin", root / "train" / "index.bin")
    told = refuses(train, *RUN, f"data.root={root}", "--dry-run")
    assert f" {root / 'train' / 'shard-00000.bin'} " in told


def test_a_pack_that_is_not_finished_is_no_folder_of_images(image_root: Path, refuses: Refuses) -> None:
    root = pack_of(image_root, "exact")
    (root / "train" / "index.bin").rename(root / "train" / "plan.json")
    told = refuses(train, *RUN, f"data.root={root}", "--dry-run")
    assert f"{root / 'train'} " in told
    assert "not finished" in told


def test_an_array_that_is_too_large_is_refused(image_root: Path) -> None:
    """In a pack from elsewhere, with a sparse file that fits its index."""
    root = pack_of(image_root, "raw") / "train"
    os.truncate(root / "shard-00000.bin", 64 + 3 * 30_000**2)
    with pytest.raises(InputError, match=rf"shard-00000\.bin .*\b{64 + 3 * 30_000**2:,} "):
        PackedImages(root)
    pack = PackedImages(pack_of(image_root, "raw2") / "train")
    index = pack._index
    os.truncate(index.path / "shard-00000.bin", 64 + 3 * 30_000**2)
    index.header = index.header._replace(shards=[64 + 3 * 30_000**2])
    index.offset, index.length = np.full(24, 64, np.uint64), np.full(24, 3 * 30_000**2, np.uint32)
    index.height = index.width = np.full(24, 30_000, np.uint32)
    with pytest.raises(BadImageError, match="100,000,000"):
        pack.image(0)


def test_a_shard_that_is_cut_short_while_it_is_open_is_a_bad_image(image_root: Path) -> None:
    pack = pack_of(image_root, "raw")
    images = PackedImages(pack / "train")
    shard = pack / "train" / "shard-00000.bin"
    os.truncate(shard, 100)
    with pytest.raises(OSError, match="cut short") as caught:
        images.image(5)
    assert caught.value.errno == errno.EIO, "which concerns one image"


@pytest.mark.parametrize("workers", [0, 1])
def test_a_record_outside_its_shard_is_skipped_like_a_bad_image(image_root: Path, workers: int) -> None:
    pack = pack_of(image_root, "exact")
    index = pack / "train" / "index.bin"
    with index.open("r+b") as file:
        file.seek(PackIndex(pack / "train").header.columns["offset"]["offset"])
        file.write((1 << 50).to_bytes(8, "little"))
    with pytest.raises(LocalInputError, match=r"outside its shard") as caught:
        micro_batches(pack, workers)
    assert "Traceback" not in str(caught.value)
    assert len(micro_batches(pack, workers, "data.on_bad_image=skip")) == 9
