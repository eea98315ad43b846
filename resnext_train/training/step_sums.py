"""What a step sums over its micro-batches and over all ranks, beside gradients."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor

from resnext_train.distributed.dist_context import DistContext


class StepSums:
    """One flat tensor: BatchNorm statistics, loss and correct predictions of each micro-batch, unreadable images.

    One all-reduce serves them all. Each micro-batch has places of its own for its loss and its correct predictions,
    which only its rank fills, so that all ranks know them exactly.

    A rank has a tensor for each shard that it computes, and adds them up as an all-reduce of as many ranks would.
    """

    def __init__(
        self, statistics: int, micro_batches: int, shards: int, dtype: torch.dtype, context: DistContext
    ) -> None:
        self._several = context.world_size > 1
        sizes = [statistics, micro_batches, micro_batches, 1]
        self._shards = [torch.zeros(sum(sizes), dtype=dtype, device=context.device) for _ in range(shards)]
        self._places = [
            (losses.unbind(), correct.unbind(), unreadable)
            for _, losses, correct, unreadable in (shard.split(sizes) for shard in self._shards)
        ]
        self.of_shards = [shard[:statistics] for shard in self._shards]
        """The statistics of each shard, to add to."""
        total = self._shards[0]
        self.statistics, self._results = total[:statistics], total[statistics:]
        self._deciding = total[: statistics + micro_batches]
        self._work: dist.Work | None = None
        self._begun = False

    def add(self, shard: int, number: int, loss: Tensor, correct: Tensor, unreadable: int) -> None:
        """Add micro-batch `number`: its summed loss, a bool for each image, and how many could not be read."""
        losses, counts, missing = self._places[shard]
        losses[number].copy_(loss)
        torch.sum(correct, 0, dtype=losses[number].dtype, out=counts[number])
        if unreadable:
            missing.add_(unreadable)

    def begin_reduce(self) -> None:
        """Begin to sum over shards and ranks, beside the last backward pass."""
        for shard in self._shards[1:]:
            self._shards[0] += shard
            shard.zero_()
        if self._several:
            self._work = dist.all_reduce(self._shards[0], async_op=True)

    def largest(self) -> Tensor:
        """Wait for the sums; return a scalar that is finite only if all statistics and losses are."""
        if self._work is not None:
            self._work.wait()
            self._work = None
        largest: Tensor = torch.linalg.vector_norm(self._deciding, torch.inf)
        return largest

    def take_results(self, *flags: Tensor) -> Tensor:
        """Return losses (M,), correct predictions (M,), unreadable images and `flags` (bool) in a row; clear all."""
        results = torch.cat((self._results, *(flag.view(1) for flag in flags)))
        self._shards[0].zero_()
        self._begun = False
        return results

    def begin(self) -> None:
        """Begin a step, and forget one that ended with an error."""
        if self._begun:
            self._work = None
            for shard in self._shards:
                shard.zero_()
        self._begun = True
