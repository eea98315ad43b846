"""Runs that end early, by a signal in a step of their own choice."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import pytest

from resnext_train.distributed.rank import this_rank
from resnext_train.training.train_step import TrainStep


def signal_in_step(step: int, number: signal.Signals, rank: int | None, after: float = 0.0) -> None:
    """Send this process a signal when step number `step` begins, if this is `rank`, or anyway if that is None.

    `after` so many seconds, in which threads may write.
    """
    take = TrainStep.__call__

    def signalled(self: TrainStep, micro_batches: Any, before: int, *more: Any) -> None:
        if before + 1 == step and rank in (None, this_rank().rank):
            time.sleep(after)
            os.kill(os.getpid(), number)
        take(self, micro_batches, before, *more)

    pytest.MonkeyPatch().setattr(TrainStep, "__call__", signalled)
