"""Groups as they reach the training process, from the main process or from workers."""

from __future__ import annotations

import os
import pickle
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset

from resnext_train.config import load_recipe
from resnext_train.data.batch_datasets import SHARED_BUFFERS, BatchBuffers
from resnext_train.data.build_loaders import build_eval_loader, build_evaluation, build_train_loader
from resnext_train.data.build_sources import build_splits
from resnext_train.data.device_loader import DeviceLoader, Loading, _WithErrors
from resnext_train.data.image_batch import ImageBatch, UnreadableImage
from resnext_train.data.sampler import BatchIndices
from resnext_train.data.sources.synthetic_images import SyntheticImages
from resnext_train.distributed.dist_context import DistContext
from resnext_train.distributed.rank import Rank
from resnext_train.errors import InputError, LocalInputError
from resnext_train.training.setup import build_plan

ONE = DistContext(Rank(), torch.device("cpu"))


def micro_batches(
    root: Path, workers: int, start: int, stop: int, seed: int = 0, options: tuple[str, ...] = ()
) -> list[ImageBatch]:
    where = [f"data.root={root}", f"data.workers={workers}", f"train.seed={seed}"]
    how = ["augment.size=32", "train.batch_size=8", "train.micro_batch=4"]
    recipe = load_recipe("resnet18.yaml", [*where, *how, *options])
    splits = build_splits(recipe.data)
    plan = build_plan(recipe, splits)
    loader = build_train_loader(recipe, splits.train, plan, ONE, range(start, stop), print)
    return [micro_batch._replace(images=copied(micro_batch.images)) for micro_batch in loader]


def copied(images: torch.Tensor) -> torch.Tensor:
    """A copy of images, which lie without gaps: a copy would have none in any case."""
    assert images.is_contiguous(memory_format=torch.channels_last)
    return images.clone()


def equal(a: ImageBatch, b: ImageBatch) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.tensors, b.tensors, strict=True))


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_and_restarts_change_nothing(image_root: Path, workers: int) -> None:
    torch.manual_seed(1)
    whole = micro_batches(image_root, 0, 0, 6)
    torch.manual_seed(2)
    state = torch.get_rng_state()
    parallel = micro_batches(image_root, workers, 2, 6)
    assert torch.equal(torch.get_rng_state(), state), "the global generator is left alone"
    assert all(equal(a, b) for a, b in zip(whole[4:], parallel, strict=True))
    first = whole[0]
    assert first.images.shape == (4, 3, 32, 32)
    assert first.images.is_contiguous(memory_format=torch.channels_last)


def test_growing_repeated_and_erased_images_are_the_same_from_workers(image_root: Path) -> None:
    """Smaller crops lie at the beginning of the same memory, without gaps."""
    growing = ("augment.size=96", "augment.start_size=32", "augment.growth=[0, 2]")
    options = (*growing, "augment.repeats=3", "erase.probability=0.5", "erase.count=2")
    whole, parallel = (micro_batches(image_root, workers, 2, 9, options=options) for workers in (0, 2))
    assert all(equal(a, b) for a, b in zip(whole, parallel, strict=True))
    assert [batch.images.shape[-1] for batch in whole] == [32] * 2 + [64] * 6 + [96] * 6
    assert {tuple(b.erase_boxes.shape) for b in whole if b.erase_boxes is not None} == {(4, 2, 4)}


def test_augmentation_differs_between_epochs_and_seeds(image_root: Path) -> None:
    def by_content(many: list[ImageBatch]) -> set[bytes]:
        return {image.numpy().tobytes() for g in many for image in g.images}

    first, second, other = (
        micro_batches(image_root, 0, 0, 3),
        micro_batches(image_root, 0, 3, 6),
        micro_batches(image_root, 0, 0, 3, seed=1),
    )
    assert len(by_content(first)) == 24
    assert not by_content(first) & by_content(second)
    assert not by_content(first) & by_content(other)


def test_each_image_keeps_its_label(image_root: Path) -> None:
    counts = np.bincount(torch.cat([g.labels for g in micro_batches(image_root, 0, 0, 3)]))
    assert counts.tolist() == [8, 8, 8]


def test_evaluation_blocks_are_whole_and_in_order(image_root: Path) -> None:
    recipe = load_recipe("resnet18.yaml", [f"data.root={image_root}", "data.workers=2", "eval.batch_size=4"])
    val = build_splits(recipe.data).val
    images = build_evaluation(recipe.eval, val, ("dog", "cat", "yak", "emu")).images
    blocks = list(build_eval_loader(recipe, images, ONE, print))
    assert [len(b.labels) for b in blocks] == [4, 4, 1]
    assert torch.cat([b.labels for b in blocks]).tolist() == [1, 1, 1, 0, 0, 0, 3, 3, 3]


def test_synthetic_images_are_reproducible_and_their_splits_differ() -> None:
    train, again, val = (SyntheticImages(7, 30, 24, s) for s in ("train", "train", "val"))
    pixels = [train.image(i).region(0, 0, 24, 24) for i in range(30)]
    assert all(torch.equal(p, again.image(i).region(0, 0, 24, 24)) for i, p in enumerate(pixels))
    assert pixels[0].dtype == torch.uint8
    assert (
        len(
            {p.numpy().tobytes() for p in pixels}
            | {val.image(i).region(0, 0, 24, 24).numpy().tobytes() for i in range(30)}
        )
        == 60
    )
    assert np.bincount(train.labels).tolist() == [5, 5, 4, 4, 4, 4, 4]
    # Learnable: images are closest in mean colour to others of their class
    means = torch.stack([p.float().mean((1, 2)) for p in pixels])
    nearest = torch.cdist(means, means).fill_diagonal_(1e9).argmin(1)
    assert (train.labels[nearest.numpy()] == train.labels).mean() > 0.8


class Numbered(Dataset[ImageBatch | UnreadableImage]):
    """Groups of images all of which have the group's number as their only level, made as training makes them."""

    def __init__(self, sizes: list[int]) -> None:
        self.sizes, self.batches = sizes, BatchBuffers(64, max(sizes))

    def __getitem__(self, indices: BatchIndices) -> ImageBatch:
        number = int(indices.images[0])
        batch = self.batches.next(self.sizes[number])
        batch.fill_(number % 251)
        return ImageBatch(batch, torch.full((len(batch),), number), None)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_memory_that_is_filled_again_never_shows_through(workers: int) -> None:
    """A batch holds until the next but one is asked for, also from processes far quicker than the receiver."""
    sizes = [5 + (n * 7) % 3 for n in range(300)]
    numbers = [BatchIndices(0, np.array([n])) for n in range(len(sizes))]
    loader = DeviceLoader(Numbered(sizes), numbers, Loading(workers, 60), torch.device("cpu"), print)
    for _ in range(2):  # an evaluation's loader is gone through again and again
        before: ImageBatch | None = None
        for n, micro_batch in enumerate(loader):
            if n % 10 == 0:
                time.sleep(0.01)  # all that the processes may make ahead, they have made now
            for number, held in ((n, micro_batch), (n - 1, before)):
                if held is not None:
                    assert len(held.images) == sizes[number]
                    assert (held.images == number % 251).all()
                    assert (held.labels == number).all()
                    assert held.images.is_contiguous(memory_format=torch.channels_last)
            before = micro_batch
        assert n == len(sizes) - 1


def test_a_loader_process_takes_no_new_memory_for_every_group() -> None:
    """What it hands over lies in a few batches, however many micro-batches there are."""
    numbers = [BatchIndices(0, np.array([n])) for n in range(40)]
    loader = DeviceLoader(Numbered([8] * 40), numbers, Loading(1, 60), torch.device("cpu"), print)
    handed_over = [micro_batch.images for micro_batch in loader if isinstance(micro_batch, ImageBatch)]
    inodes = {os.fstat(images.untyped_storage()._share_fd_cpu_()[0]).st_ino for images in handed_over}
    assert len(inodes) == SHARED_BUFFERS


class Lost(Numbered):
    """Images that a loader process does not find again where it is not forked."""

    def __getstate__(self) -> object:
        return {}

    def __setstate__(self, state: object) -> None:
        raise InputError("the images are gone")


def test_images_that_a_loader_process_cannot_open_again_end_the_run() -> None:
    there, numbers = pickle.loads(pickle.dumps(_WithErrors(Lost([1])))), [BatchIndices(0, np.array([0]))]
    with pytest.raises(LocalInputError, match=r"^the images are gone$"):
        next(iter(DeviceLoader(there, numbers, Loading(0, 60), torch.device("cpu"), print)))


def test_the_longest_patience_of_a_recipe_is_no_time_out_of_its_own(image_root: Path) -> None:
    options = ["data.workers=1", "train.patience=1000000", "eval.batch_size=4"]
    recipe = load_recipe("resnet18.yaml", [f"data.root={image_root}", *options])
    assert len(list(build_eval_loader(recipe, build_splits(recipe.data).val, ONE, print))) == 3
