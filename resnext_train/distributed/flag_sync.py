"""Combine the flags of all ranks at a step boundary."""

from __future__ import annotations

import torch
import torch.distributed as dist

from resnext_train.distributed.dist_context import DistContext


class FlagSync:
    """All-reduces per-rank flags at a step boundary without a GPU sync."""

    def __init__(self, context: DistContext, count: int) -> None:
        self._context = context
        self._before: tuple[torch.Tensor, dist.Work] | None = None
        self._none = [0] * count

    def all_reduce_max(self, flags: list[int]) -> list[int]:
        """Return the largest of each flag over all ranks. Every rank must call this equally often.

        On GPUs these are the flags of the call before: the exchange has a whole step's time, and costs none.

        Raises:
            RuntimeError: another rank is gone, or keeps this one waiting too long.
        """
        if self._context.world_size == 1:
            return flags
        tensor = torch.tensor(flags)
        work = dist.all_reduce(tensor, dist.ReduceOp.MAX, group=self._context.control, async_op=True)
        assert work is not None
        current, ready = (tensor, work), self._before
        if self._context.device.type == "cpu":
            ready = current
        self._before = current
        if ready is None:
            return self._none
        ready[1].wait()
        return ready[0].tolist()  # type: ignore[no-any-return]
