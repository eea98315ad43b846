"""Which rank this process is, as its launcher's environment says. Imports no torch."""

from __future__ import annotations

import os
import re
from dataclasses import asdict, dataclass

from resnext_train.distributed.slurm_step import slurm_task
from resnext_train.errors import InputError


@dataclass(frozen=True)
class Rank:
    """A process among those of a run, and among those on its host; alone, it is rank 0 of 1."""

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    local_world_size: int = 1
    address: str = ""
    """Of several ranks, the host where they meet."""
    port: int = 0
    by_slurm: bool = False
    """Whether srun has started it, and no launcher that sets torchrun's variables."""

    @property
    def is_main(self) -> bool:
        """Whether this rank writes the run folder and prints to the user."""
        return self.rank == 0

    @property
    def is_first_on_host(self) -> bool:
        return self.local_rank == 0

    def variables(self) -> dict[str, str]:
        """Return the environment variables by which torch learns of this rank."""
        names = {"RANK": self.rank, "WORLD_SIZE": self.world_size}
        names |= {"LOCAL_RANK": self.local_rank, "LOCAL_WORLD_SIZE": self.local_world_size, "MASTER_PORT": self.port}
        return {"MASTER_ADDR": self.address, **{name: str(value) for name, value in names.items()}}


def this_rank() -> Rank:
    """Return the rank of this process: as torchrun's variables say, else as those of a Slurm step do, else 0 of 1.

    Raises:
        InputError: the variables contradict each other, or are no numbers.
    """
    if not os.environ.get("RANK") and not os.environ.get("WORLD_SIZE"):
        task = slurm_task()
        return _checked(Rank(**asdict(task), by_slurm=True)) if task else Rank()
    world_size, local_rank = _number("WORLD_SIZE"), _number("LOCAL_RANK", 0)
    local_world_size = _number("LOCAL_WORLD_SIZE", local_rank + 1)
    if world_size == 1:
        return _checked(Rank(_number("RANK", 0), 1, local_rank, local_world_size))
    rank = _number("RANK")
    if not os.environ.get("MASTER_ADDR"):
        raise InputError(f"MASTER_ADDR is not set, the host where the {world_size} processes meet; {_LAUNCHERS}")
    address, port = os.environ["MASTER_ADDR"], _number("MASTER_PORT")
    return _checked(Rank(rank, world_size, local_rank, local_world_size, address, port))


def rank_in_messages() -> Rank:
    """Return `this_rank`; where the environment cannot be read, a rank that speaks for itself."""
    try:
        return this_rank()
    except InputError:
        return Rank()


def _checked(place: Rank) -> Rank:
    """Return `place`, if such a rank can be."""
    if place.world_size < 1:
        raise InputError(f"WORLD_SIZE={place.world_size}: must be at least 1; {_LAUNCHERS}")
    slurm = ("SLURM_PROCID", "the step's number of tasks, "), ("SLURM_LOCALID", "the node's number of tasks, ")
    others = ("RANK", "WORLD_SIZE="), ("LOCAL_RANK", "LOCAL_WORLD_SIZE=")
    numbers = (place.rank, place.world_size), (place.local_rank, place.local_world_size)
    for (name, size), (number, most) in zip(slurm if place.by_slurm else others, numbers, strict=True):
        if number >= most:
            raise InputError(f"{name}={number}: must be below {size}{most}; {_LAUNCHERS}")
    if place.local_world_size > place.world_size:
        raise InputError(
            f"LOCAL_WORLD_SIZE={place.local_world_size}: must not be above WORLD_SIZE={place.world_size}; {_LAUNCHERS}"
        )
    if place.world_size > 1 and not 1 <= place.port <= 65_535:
        raise InputError(f"MASTER_PORT={place.port}: must be from 1 to 65535; {_LAUNCHERS}")
    return place


_LAUNCHERS = "torchrun or --procs set these variables rightly; unset them for a single process"

PATIENCE = 600.0
"""How long ranks wait for each other, in seconds, where no recipe says."""

LAUNCHER = "RESNEXT_TRAIN_LAUNCHER"
"""Environment variable in which `--procs` gives its ranks the number of its own process."""

PLANNED = "RESNEXT_TRAIN_PLANNED_PROCESSES"
"""Environment variable in which multi_node.sh tells the check of a new run how many processes there will be."""

THREADS = "RESNEXT_TRAIN_THREADS"
"""Environment variable, `auto` where a launcher, and no user, has set OMP_NUM_THREADS."""


def launcher_pid() -> int | None:
    """Return the process that started this rank by `--procs`; None under torchrun, and where it is no rank."""
    return (_number(LAUNCHER, 0) or None) if "RANK" in os.environ else None


def planned_processes() -> int:
    """Return how many processes the run will have that this process checks; 0 where nobody says."""
    return _number(PLANNED, 0)


def threads_are_chosen() -> bool:
    """Return whether the user has chosen the number of threads of a process, by OMP_NUM_THREADS."""
    return bool(os.environ.get("OMP_NUM_THREADS")) and os.environ.get(THREADS) != "auto"


def _number(name: str, default: int | None = None) -> int:
    """Return an environment variable; `default` where it is not set or empty, as scripts export what they do not know.

    Raises:
        InputError: it is no number, or is needed and not set.
    """
    value = os.environ.get(name, "")
    if not value and default is not None:
        return default
    if not value:
        raise InputError(f"{name} is not set, but other variables of a launcher are; {_LAUNCHERS}")
    if not re.fullmatch(r"\d{1,9}", value, re.ASCII):
        raise InputError(f"{name}={value}: must be a whole number from 0; {_LAUNCHERS}")
    return int(value)
