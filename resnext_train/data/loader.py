"""Groups of images from loader processes to the training process, already put together as whole uint8 tensors."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from resnext_train.data.jpeg import BadImageError, Picture
from resnext_train.data.photometric import Photometric
from resnext_train.data.randomness import uniforms
from resnext_train.data.sampler import Indices
from resnext_train.data.transforms import COLOUR_DRAWS, DRAWS, Augmentation, EvalTransform, empty_batch
from resnext_train.errors import LocalInputError


class Source(Protocol):
    """Labelled images, by number. Labels are positions in `classes`."""

    classes: tuple[str, ...]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        """Number of images."""

    def name(self, i: int) -> str:
        """What image `i` is called in messages: its path."""

    def picture(self, i: int) -> Picture:
        """Image `i`; raises BadImageError or OSError where it cannot be read."""


class Group(NamedTuple):
    """A BN group or an evaluation block: uint8 images (n, 3, S, S), labels (n,), colour draws (n, JITTER_FIELDS)."""

    images: Tensor
    labels: Tensor
    jitter: Tensor | None

    def to(self, device: torch.device) -> Group:
        """The same on `device`, without waiting for the copy."""
        return Group(*(None if t is None else t.to(device, non_blocking=True) for t in self))  # type: ignore[arg-type]


class Unreadable(NamedTuple):
    """What a loader process hands over in place of a group with an image that cannot be read."""

    message: str


class TrainGroups(Dataset[Group | Unreadable]):
    """Augmented groups; how an image is augmented is a function of (seed, epoch, image)."""

    def __init__(self, source: Source, transform: Augmentation, photometric: Photometric, seed: int) -> None:
        self.source, self.transform, self.photometric, self.seed = source, transform, photometric, seed

    def __getitem__(self, indices: Indices) -> Group | Unreadable:
        draws = uniforms(self.seed, indices.epoch, indices.images, DRAWS)
        images = _gather(
            self.source,
            indices,
            self.transform.size,
            lambda picture, slot: self.transform(picture, draws[slot]),
        )
        if isinstance(images, Unreadable):
            return images
        jitter = self.photometric.draw_jitter(draws[:, -COLOUR_DRAWS:])
        return Group(images, torch.from_numpy(self.source.labels[indices.images]), torch.from_numpy(jitter))


class EvalGroups(Dataset[Group | Unreadable]):
    """Evaluation blocks."""

    def __init__(self, source: Source, transform: EvalTransform) -> None:
        self.source, self.transform = source, transform

    def __getitem__(self, indices: Indices) -> Group | Unreadable:
        images = _gather(self.source, indices, self.transform.crop, lambda picture, _: self.transform(picture))
        if isinstance(images, Unreadable):
            return images
        return Group(images, torch.from_numpy(self.source.labels[indices.images]), None)


def _gather(
    source: Source, indices: Indices, size: int, transform: Callable[[Picture, int], Tensor]
) -> Tensor | Unreadable:
    # In a loader process the batch is made in shared memory at once, so that handing it over copies nothing.
    batch = empty_batch(len(indices.images), size, shared=get_worker_info() is not None)
    for slot, i in enumerate(indices.images.tolist()):
        try:
            batch[slot] = transform(source.picture(i), slot)
        except (BadImageError, OSError) as error:
            return Unreadable(f"{source.name(i)} cannot be read: {error}; replace or remove it")
    return batch


@dataclass(frozen=True)
class LoaderOptions:
    """Loader processes per training process, and whether their groups go through pinned memory."""

    workers: int
    pin_memory: bool


def groups_from(
    dataset: Dataset[Group | Unreadable], sampler: Iterable[Indices], options: LoaderOptions
) -> DataLoader[Group | Unreadable]:
    """A loader of one `Indices` at a time whose processes live as long as it does.

    It has a random generator of its own, because DataLoader would otherwise draw from the global one.
    """
    return DataLoader(
        dataset,
        batch_size=None,
        sampler=sampler,
        num_workers=options.workers,
        persistent_workers=options.workers > 0,
        pin_memory=options.pin_memory,
        generator=torch.Generator(),
    )


def readable(loader: DataLoader[Group | Unreadable]) -> Iterator[Group]:
    """The groups of `loader`.

    Raises:
        LocalInputError: an image cannot be read; names it and says why.
    """
    for group in loader:
        if isinstance(group, Unreadable):
            raise LocalInputError(group.message)
        yield group


def worker_count(workers: int | Literal["auto"], local_world: int) -> int:
    """Loader processes for one training process; auto: the cores this process may use / processes on this host."""
    if workers != "auto":
        return workers
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // local_world)
