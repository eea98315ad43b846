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


class BatchIndices(NamedTuple):
    """The images of one BN group or one evaluation block, with the epoch (from 0) that their augmentation is for."""

    epoch: int
    images: NDArray[np.int64]


@dataclass(frozen=True)
class StepPlan:
    """How an epoch of `images` images is cut into steps of `batch_size` and each step into `micro_batches` BN groups.

    Raises:
        InputError: fewer images than two to a group.
    """

    images: int
    batch_size: int
    micro_batches: int

    def __post_init__(self) -> None:
        if self.images < 2 * self.micro_batches:
            raise InputError(
                f"{self.images} training images cannot fill {self.micro_batches} BN groups of at least 2; "
                "use more images or a smaller train.batch_size"
            )

    @property
    def dropped(self) -> int:
        """Images of each epoch that no step uses, because they could not fill every group with two."""
        remainder = self.images % self.batch_size
        return remainder if remainder < 2 * self.micro_batches else 0

    @property
    def steps_per_epoch(self) -> int:
        """Steps in an epoch, the partial one included."""
        return -(-(self.images - self.dropped) // self.batch_size)

    def step_size(self, step: int) -> int:
        """Images in step `step`, counted from 0 over the whole run."""
        position = step % self.steps_per_epoch * self.batch_size
        return min(self.batch_size, self.images - self.dropped - position)

    def micro_batches_of(self, step: int, order: NDArray[np.int64]) -> list[NDArray[np.int64]]:
        """The groups of step `step` where `order` is its epoch's; their sizes differ by at most one."""
        position = step % self.steps_per_epoch * self.batch_size
        return np.array_split(order[position : position + self.step_size(step)], self.micro_batches)


def shard_for_rank(micro_batches: int, world_size: int, rank: int) -> range:
    """The groups that `rank` of `world_size` processes computes: contiguous shares whose sizes differ by at most one."""
    base, more = divmod(micro_batches, world_size)
    first = rank * base + min(rank, more)
    return range(first, first + base + (rank < more))


class TrainSampler:
    """The groups of one process from step `start` to step `stop`, in order; an endless epoch for the loader.

    Iterating yields one `BatchIndices` per group, so one loader iterator serves the whole run. While an epoch is dealt out,
    the next one is shuffled in a thread: for ImageNet that takes a tenth of a second, which a GPU would wait for.
    """

    def __init__(self, plan: StepPlan, seed: int, shard: range, start: int, stop: int) -> None:
        self.plan, self.seed, self.shard, self.start, self.stop = plan, seed, shard, start, stop

    def __len__(self) -> int:
        return (self.stop - self.start) * len(self.shard)

    def __iter__(self) -> Iterator[BatchIndices]:
        first = self.start // self.plan.steps_per_epoch
        with ThreadPoolExecutor(max_workers=1) as shuffler:
            ahead = shuffler.submit(permutation, self.seed, first, self.plan.images)
            for epoch in range(first, -(-self.stop // self.plan.steps_per_epoch)):
                order = ahead.result()
                ahead = shuffler.submit(permutation, self.seed, epoch + 1, self.plan.images)
                yield from self._epoch(epoch, order)

    def _epoch(self, epoch: int, order: NDArray[np.int64]) -> Iterator[BatchIndices]:
        """The groups of one epoch's steps, of those between start and stop."""
        begin = epoch * self.plan.steps_per_epoch
        for step in range(max(self.start, begin), min(self.stop, begin + self.plan.steps_per_epoch)):
            micro_batches = self.plan.micro_batches_of(step, order)
            for micro_batch in self.shard:
                yield BatchIndices(epoch, micro_batches[micro_batch])


class EvalSampler:
    """Consecutive blocks of all images, block b for process b mod world: each image once, whatever the world."""

    def __init__(self, images: int, batch_size: int, world_size: int, rank: int) -> None:
        self.images, self.batch_size, self.world_size, self.rank = images, batch_size, world_size, rank
        self._batches = -(-images // batch_size)

    @property
    def rounds(self) -> int:
        """Blocks of the process that has most."""
        return -(-self._batches // self.world_size)

    def __len__(self) -> int:
        return len(range(self.rank, self._batches, self.world_size))

    def __iter__(self) -> Iterator[BatchIndices]:
        for start in range(self.rank * self.batch_size, self.images, self.world_size * self.batch_size):
            yield BatchIndices(0, np.arange(start, min(start + self.batch_size, self.images)))
