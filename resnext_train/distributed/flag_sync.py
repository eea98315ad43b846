"""Flags of all ranks, combined at a step boundary."""

from __future__ import annotations

import torch
import torch.distributed as dist

from resnext_train.distributed.dist_context import DistContext


class FlagSync:
    """What any process wishes is known to all at the same step, without making a GPU wait."""

    def __init__(self, context: DistContext, flags: int) -> None:
        """`flags` numbers are agreed on."""
        self._context = context
        self._before: tuple[torch.Tensor, dist.Work] | None = None
        self._none = [0] * flags

    def all_reduce_max(self, flags: list[int]) -> list[int]:
        """The largest of each number over all processes; every process calls this as often.

        On GPUs that is what was wished at the call before: so the exchange has a whole step's time, and costs none.

        Raises:
            RuntimeError: another process is gone, or keeps this one waiting for too long.
        """
        if self._context.world_size == 1:
            return flags
        tensor = torch.tensor(flags)
        work = dist.all_reduce(tensor, dist.ReduceOp.MAX, group=self._context.control, async_op=True)
        assert work is not None
        fresh, ready = (tensor, work), self._before
        if self._context.device.type == "cpu":
            ready = fresh
        self._before = fresh
        if ready is None:
            return self._none
        ready[1].wait()
        return ready[0].tolist()  # type: ignore[no-any-return]
