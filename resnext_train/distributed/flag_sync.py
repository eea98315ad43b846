"""What the ranks agree on between two steps."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.distributed as dist


class StepFlags(NamedTuple):
    """A rank's flags between two steps; combined, the largest of each over all ranks."""

    stop_signal: int
    """Number of the signal to stop for, or 0."""
    save: bool
    """Whether too much time has passed since the last save."""
    best_lost: int
    """Epoch of the last best.pt that could not be written, or 0."""
    saves_failing: bool
    """Whether more checkpoints in a row could not be written than the recipe tolerates."""


class FlagSync:
    """All-reduces flags over the ranks of `group`, a Gloo group.

    With `one_call_late` each call returns the flags of the call before, so that the exchange has a whole step's time.
    A GPU then never waits for it.
    """

    def __init__(self, group: dist.ProcessGroup, one_call_late: bool) -> None:
        self._group, self._one_call_late = group, one_call_late
        self._before: tuple[torch.Tensor, dist.Work] | None = None

    def all_reduce_max(self, flags: StepFlags) -> StepFlags:
        """Return the largest of each flag over all ranks. Every rank must call this equally often.

        Raises:
            RuntimeError: another rank is gone, or keeps this one waiting too long.
        """
        tensor = torch.tensor(flags, dtype=torch.int64)
        work = dist.all_reduce(tensor, dist.ReduceOp.MAX, group=self._group, async_op=True)
        assert work is not None
        current, ready = (tensor, work), self._before
        if not self._one_call_late:
            ready = current
        self._before = current
        if ready is None:
            return StepFlags(0, save=False, best_lost=0, saves_failing=False)
        ready[1].wait()
        stop_signal, save, best_lost, saves_failing = ready[0].tolist()
        return StepFlags(stop_signal, bool(save), best_lost, bool(saves_failing))
