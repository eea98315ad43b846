"""Which rank this process is, as its launcher's environment says. Imports no torch."""

from __future__ import annotations

import os
from dataclasses import dataclass


@dataclass(frozen=True)
class Rank:
    """A process among those of a run, and among those on its host; alone, it is rank 0 of 1."""

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    local_world_size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this rank writes the run folder and prints to the user."""
        return self.rank == 0

    @property
    def is_first_on_host(self) -> bool:
        return self.local_rank == 0


def this_rank() -> Rank:
    """Return the rank of this process."""
    return Rank(_number("RANK", 0), _number("WORLD_SIZE", 1), _number("LOCAL_RANK", 0), _number("LOCAL_WORLD_SIZE", 1))


PATIENCE = 600.0
"""How long ranks wait for each other, in seconds, where no recipe says."""

LAUNCHER = "RESNEXT_TRAIN_LAUNCHER"
"""Environment variable in which `--procs` gives its ranks the number of its own process."""


def launcher_pid() -> int | None:
    """Return the process that started this rank by `--procs`; None under torchrun, and where it is no rank."""
    return (_number(LAUNCHER, 0) or None) if "RANK" in os.environ else None


def _number(name: str, default: int) -> int:
    """Return an environment variable; `default` where it is not set, is empty or no number: no launcher wrote it."""
    value = os.environ.get(name, "")
    return int(value) if value.isdecimal() else default
