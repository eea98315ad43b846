"""The task of a Slurm job step that this process is: what `srun` without torchrun says in its environment.

Imports no torch.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from resnext_train.errors import InputError

_SPECIAL = 0xFFFFFFF0
"""Step numbers from here on are no steps of srun: the batch script, an interactive shell, what watches the job."""

_PORTS = 10_000, 10_000
"""The first port that a step may meet at, and how many: below the system's own, apart from those of slurm.sh."""


@dataclass(frozen=True)
class SlurmTask:
    """A task among those of its step, and where rank 0 is."""

    rank: int
    world_size: int
    local_rank: int
    local_world_size: int
    address: str
    port: int


def slurm_task() -> SlurmTask | None:
    """Return the task that this process is; None outside a step, in one of a single task, and in `srun --pty`.

    A batch script has SLURM_NTASKS, too, but is in no step.

    Raises:
        InputError: a variable of Slurm cannot be read.
    """
    step = os.environ.get("SLURM_STEP_ID") or os.environ.get("SLURM_STEPID") or ""
    if not os.environ.get("SLURM_PROCID") or not step or "SLURM_PTY_PORT" in os.environ:
        return None
    step_number = _number("SLURM_STEP_ID" if os.environ.get("SLURM_STEP_ID") else "SLURM_STEPID")
    tasks = _number("SLURM_STEP_NUM_TASKS" if os.environ.get("SLURM_STEP_NUM_TASKS") else "SLURM_NTASKS")
    if step_number >= _SPECIAL or tasks == 1:
        return None
    rank, local_rank, job = (_number(name) for name in ("SLURM_PROCID", "SLURM_LOCALID", "SLURM_JOB_ID"))
    first, ports = _PORTS
    return SlurmTask(
        rank,
        tasks,
        local_rank,
        _tasks_of_this_node(),
        os.environ.get("MASTER_ADDR") or first_host(os.environ.get("SLURM_STEP_NODELIST", "")),
        _number("MASTER_PORT") if os.environ.get("MASTER_PORT") else first + (job + 97 * step_number) % ports,
    )


def leave_slurm_step() -> None:
    """Let this process, and those that it starts, be no task of a step any more."""
    os.environ.pop("SLURM_PROCID", None)


def tasks_per_node(text: str) -> list[int]:
    """Return the number of tasks on each node: `4(x2),3` is 4, 4 and 3.

    Raises:
        InputError: `text` says something else.
    """
    counts: list[int] = []
    for part in text.split(","):
        found = re.fullmatch(r"([1-9]\d{0,5})(?:\(x([1-9]\d{0,5})\))?", part)
        if not found:
            raise InputError(f"{_NO_TASKS}SLURM_STEP_TASKS_PER_NODE={text!r} is no list such as 4(x2),3; {_REMEDY}")
        counts += [int(found[1])] * int(found[2] or 1)
    return counts


def first_host(text: str) -> str:
    """Return the first host of a list as Slurm writes it: `node03` of `node[03-05,7],other`.

    Raises:
        InputError: `text` is no such list.
    """
    found = re.match(r"(?:[^\[\],\s]|\[[\d,-]+\])+(?=,|$)", text)
    if not found:
        raise InputError(
            f"{_NO_TASKS}SLURM_STEP_NODELIST={text!r} is no list of hosts such as node[03-05,7]; {_REMEDY}"
        )
    return re.sub(r"\[(\d+)[\d,-]*\]", r"\1", found[0])


_NO_TASKS = "this is a task of a Slurm step, but "
_REMEDY = "start the processes by torchrun, or see docs/several-hosts.md"


def _tasks_of_this_node() -> int:
    counts = tasks_per_node(os.environ.get("SLURM_STEP_TASKS_PER_NODE", ""))
    if len(set(counts)) == 1:
        return counts[0]
    node = _number("SLURM_NODEID")
    if node >= len(counts):
        raise InputError(f"{_NO_TASKS}SLURM_NODEID={node} is none of its {len(counts)} nodes; {_REMEDY}")
    return counts[node]


def _number(name: str) -> int:
    value = os.environ.get(name, "")
    if not re.fullmatch(r"\d{1,12}", value, re.ASCII):
        raise InputError(f"{_NO_TASKS}{name}={value!r} is no number; {_REMEDY}")
    return int(value)
