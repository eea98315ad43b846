"""Which images make up which step: a function of (seed, step) alone, the same for any number of processes.

A step's images are cut into a fixed number of BN groups, and the groups are dealt to the processes in contiguous
shares. The last, partial batch of an epoch is a step like any other, cut into as many groups; a remainder that would
leave a group with fewer than two images is dropped.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from resnext_train.data.rng import permutation
from resnext_train.errors import InputError


class Indices(NamedTuple):
    """The images of one BN group or one evaluation block, with the epoch (from 0) that their augmentation is for."""

    epoch: int
    images: NDArray[np.int64]


@dataclass(frozen=True)
class StepPlan:
    """How an epoch of `images` images is cut into steps of `batch_size` and each step into `groups` BN groups.

    Raises:
        InputError: fewer images than two to a group.
    """

    images: int
    batch_size: int
    groups: int

    def __post_init__(self) -> None:
        if self.images < 2 * self.groups:
            raise InputError(
                f"{self.images} training images cannot fill {self.groups} BN groups of at least 2; "
                "use more images or a smaller train.batch_size"
            )

    @property
    def dropped(self) -> int:
        """Images of each epoch that no step uses, because they could not fill every group with two."""
        remainder = self.images % self.batch_size
        return remainder if remainder < 2 * self.groups else 0

    @property
    def steps_per_epoch(self) -> int:
        """Steps in an epoch, the partial one included."""
        return -(-(self.images - self.dropped) // self.batch_size)

    def step_size(self, step: int) -> int:
        """Images in step `step`, counted from 0 over the whole run."""
        position = step % self.steps_per_epoch * self.batch_size
        return min(self.batch_size, self.images - self.dropped - position)

    def groups_of(self, step: int, order: NDArray[np.int64]) -> list[NDArray[np.int64]]:
        """The groups of step `step` where `order` is its epoch's; their sizes differ by at most one."""
        position = step % self.steps_per_epoch * self.batch_size
        return np.array_split(order[position : position + self.step_size(step)], self.groups)


def deal(groups: int, world: int, rank: int) -> range:
    """The groups that `rank` of `world` processes computes: contiguous shares whose sizes differ by at most one."""
    base, more = divmod(groups, world)
    first = rank * base + min(rank, more)
    return range(first, first + base + (rank < more))


class TrainSampler:
    """The groups of one process from step `start` to step `stop`, in order; an endless epoch for the loader.

    Iterating yields one `Indices` per group, so one loader iterator serves the whole run. While an epoch is dealt out,
    the next one is shuffled in a thread: for ImageNet that takes a tenth of a second, which a GPU would wait for.
    """

    def __init__(self, plan: StepPlan, seed: int, share: range, start: int, stop: int) -> None:
        self.plan, self.seed, self.share, self.start, self.stop = plan, seed, share, start, stop

    def __len__(self) -> int:
        return (self.stop - self.start) * len(self.share)

    def __iter__(self) -> Iterator[Indices]:
        first = self.start // self.plan.steps_per_epoch
        with ThreadPoolExecutor(max_workers=1) as shuffler:
            ahead = shuffler.submit(permutation, self.seed, first, self.plan.images)
            for epoch in range(first, -(-self.stop // self.plan.steps_per_epoch)):
                order = ahead.result()
                ahead = shuffler.submit(permutation, self.seed, epoch + 1, self.plan.images)
                yield from self._epoch(epoch, order)

    def _epoch(self, epoch: int, order: NDArray[np.int64]) -> Iterator[Indices]:
        """The groups of one epoch's steps, of those between start and stop."""
        begin = epoch * self.plan.steps_per_epoch
        for step in range(max(self.start, begin), min(self.stop, begin + self.plan.steps_per_epoch)):
            groups = self.plan.groups_of(step, order)
            for group in self.share:
                yield Indices(epoch, groups[group])


class EvalSampler:
    """Consecutive blocks of all images, block b for process b mod world: each image once, whatever the world."""

    def __init__(self, images: int, batch_size: int, world: int, rank: int) -> None:
        self.images, self.batch_size, self.world, self.rank = images, batch_size, world, rank
        self._blocks = -(-images // batch_size)

    @property
    def rounds(self) -> int:
        """Blocks of the process that has most."""
        return -(-self._blocks // self.world)

    def __len__(self) -> int:
        return len(range(self.rank, self._blocks, self.world))

    def __iter__(self) -> Iterator[Indices]:
        for start in range(self.rank * self.batch_size, self.images, self.world * self.batch_size):
            yield Indices(0, np.arange(start, min(start + self.batch_size, self.images)))
