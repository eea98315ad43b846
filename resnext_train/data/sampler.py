"""Choose the images of each step as a function of (seed, step) alone, whatever the world size.

A step's images are cut into a fixed number of micro-batches, and each rank computes a contiguous shard of them. The
last, partial batch of an epoch is a step like any other, cut into as many micro-batches, or is dropped: a small one
would change the weights as much as a whole batch, by the gradient of a few images.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from resnext_train.data.rng import permutation
from resnext_train.errors import InputError


class BatchIndices(NamedTuple):
    """The images of one micro-batch or evaluation batch, and the epoch (from 0) whose augmentation they get."""

    epoch: int
    images: NDArray[np.int64]
    repetitions: NDArray[np.int64] | None = None
    """Which time each image comes in the epoch, from 0; None: all for the first time."""


@dataclass(frozen=True)
class StepPlan:
    """How an epoch of `images` images is cut into steps of `batch_size`, and each step into `micro_batches`.

    An epoch is a shuffle of the images. With `repeats`, each image of it comes that many times in a row, until there
    are as many as `images`: other images wait for another epoch (repeated augmentation, arXiv 1902.05509). Micro-batch
    m of M then takes every M-th image of a step from image m on, as each rank does in the RASampler of torchvision's
    training references: the repetitions of an image are in different micro-batches, where there are enough.

    Raises:
        InputError: fewer than two images per micro-batch.
    """

    images: int
    batch_size: int
    micro_batches: int
    last_batch: Literal["auto", "keep", "drop"] = "auto"
    """Whether the partial batch is a step; auto: where it is at least half a batch. With fewer than two images per
    micro-batch it never is; where it is all there is, it is."""
    repeats: int = 1

    def __post_init__(self) -> None:
        if self.images < 2 * self.micro_batches:
            raise InputError(
                f"{self.images} training images cannot fill {self.micro_batches} micro-batches of at least 2; "
                "use more images or a smaller train.batch_size"
            )

    @property
    def different_images(self) -> int:
        """How many different images an epoch has, before its last ones are dropped."""
        return -(-self.images // self.repeats)

    @property
    def dropped(self) -> int:
        """Images of each epoch that no step uses."""
        return 0 if self._keeps_remainder else self.images % self.batch_size

    @property
    def partial(self) -> int:
        """Images of an epoch's last step, if these are fewer than a batch; else 0."""
        return self.images % self.batch_size if self._keeps_remainder else 0

    @property
    def _keeps_remainder(self) -> bool:
        remainder = self.images % self.batch_size
        if remainder < 2 * self.micro_batches:
            return False
        if self.images < self.batch_size or self.last_batch == "keep":
            return True
        return self.last_batch == "auto" and 2 * remainder >= self.batch_size

    @property
    def steps_per_epoch(self) -> int:
        """Steps in an epoch, including the partial one."""
        return -(-(self.images - self.dropped) // self.batch_size)

    def step_size(self, step: int) -> int:
        """Return the number of images in step `step`, counted from 0 over the whole run."""
        position = step % self.steps_per_epoch * self.batch_size
        return min(self.batch_size, self.images - self.dropped - position)

    def images_until(self, step: int) -> int:
        """Return the number of images in the steps before step `step`."""
        epochs, steps = divmod(step, self.steps_per_epoch)
        return epochs * (self.images - self.dropped) + steps * self.batch_size

    def order(self, seed: int, epoch: int) -> NDArray[np.int64]:
        """Return the images of `epoch`, counted from 0, in order."""
        shuffled = permutation(seed, epoch, self.images)
        if self.repeats == 1:
            return shuffled
        return np.repeat(shuffled[: self.different_images], self.repeats)[: self.images]

    def micro_batches_of(self, step: int, order: NDArray[np.int64]) -> list[BatchIndices]:
        """Return the micro-batches of step `step`, given its epoch's `order`; their sizes differ by at most one."""
        epoch, number = divmod(step, self.steps_per_epoch)
        first = number * self.batch_size
        if self.repeats == 1:
            images = np.array_split(order[first : first + self.step_size(step)], self.micro_batches)
            return [BatchIndices(epoch, part) for part in images]
        positions = np.arange(first, first + self.step_size(step))
        parts = [positions[m :: self.micro_batches] for m in range(self.micro_batches)]
        return [BatchIndices(epoch, order[part], part % self.repeats) for part in parts]


def shard_for_rank(micro_batches: int, world_size: int, rank: int) -> range:
    """Return the contiguous micro-batches that `rank` computes; their number differs between ranks by at most one."""
    base, extra = divmod(micro_batches, world_size)
    first = rank * base + min(rank, extra)
    return range(first, first + base + (rank < extra))


class TrainSampler:
    """Yields the micro-batches of one rank from step `start` to step `stop`, in order.

    The epochs follow one another without a break, so one loader iterator serves the whole run.
    """

    def __init__(self, plan: StepPlan, seed: int, shard: range, start: int, stop: int) -> None:
        self.plan, self.seed, self.shard, self.start, self.stop = plan, seed, shard, start, stop

    def __len__(self) -> int:
        return (self.stop - self.start) * len(self.shard)

    def __iter__(self) -> Iterator[BatchIndices]:
        first = self.start // self.plan.steps_per_epoch
        # Shuffling ImageNet takes a tenth of a second, for which a GPU would wait: a thread shuffles the next epoch
        # while this one is in use.
        with ThreadPoolExecutor(max_workers=1) as shuffler:
            next_order = shuffler.submit(self.plan.order, self.seed, first)
            for epoch in range(first, -(-self.stop // self.plan.steps_per_epoch)):
                order = next_order.result()
                next_order = shuffler.submit(self.plan.order, self.seed, epoch + 1)
                yield from self._epoch(epoch, order)

    def _epoch(self, epoch: int, order: NDArray[np.int64]) -> Iterator[BatchIndices]:
        begin = epoch * self.plan.steps_per_epoch
        for step in range(max(self.start, begin), min(self.stop, begin + self.plan.steps_per_epoch)):
            micro_batches = self.plan.micro_batches_of(step, order)
            yield from (micro_batches[number] for number in self.shard)


class EvalSampler:
    """Yields consecutive batches of all images, batch b on rank b mod world_size: each image once in all.

    All ranks yield equally many, because they meet in collectives between them; the last of some is empty.
    """

    def __init__(self, images: int, batch_size: int, world_size: int, rank: int) -> None:
        self.images, self.batch_size, self.world_size, self.rank = images, batch_size, world_size, rank

    def __len__(self) -> int:
        return -(-self.images // (self.batch_size * self.world_size))

    def __iter__(self) -> Iterator[BatchIndices]:
        for turn in range(len(self)):
            start = (turn * self.world_size + self.rank) * self.batch_size
            yield BatchIndices(0, np.arange(start, min(start + self.batch_size, self.images)))
