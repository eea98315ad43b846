"""Which cores a process may use, and how the ranks of a host share them. Imports no torch."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

_QUOTA = Path("/sys/fs/cgroup/cpu.max")


@dataclass(frozen=True)
class CoreShare:
    """The part of its host's cores that a rank may count on, alone or beside the other ranks of the host."""

    part: float
    """In cores; of one that several ranks may use, each has a part."""
    allowed: int
    """Cores that the process may use, whoever else does."""
    ranks: int = 1
    """Ranks of this host that share cores, with this one."""
    total: float = 0.0
    """What all of them may use together."""
    quota: float | None = None
    """Cores of the container's quota, where it is what limits the part."""

    @property
    def whole(self) -> int:
        """The part in whole cores, at least one."""
        return max(1, int(self.part + 1e-6))

    @property
    def text(self) -> str:
        """The part in words: `28 of this host's 56 cores are this process's`."""
        if self.quota is not None:
            return (
                f"{round(self.part, 1):g} of the container's quota of {round(self.quota, 1):g} cores are this process's"
            )
        return f"{round(self.part, 1):g} of this host's {os.cpu_count() or 1} cores are this process's"


def own_cores() -> frozenset[int]:
    """Return the cores that this process may use, by its CPU affinity."""
    return frozenset(os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1))


def own_share(quota: Path = _QUOTA) -> CoreShare:
    """Return the cores of this process where it is the only rank of its host."""
    return share_of_cores([own_cores()], 0, quota)


def share_of_cores(affinities: Sequence[Collection[int]], index: int, quota: Path = _QUOTA) -> CoreShare:
    """Return the share of one of the ranks of this host, given the cores that each of them may use.

    Each core is divided by the ranks that may use it, and the container's quota by all of them.
    """
    users: dict[int, int] = {}
    for cores in affinities:
        for core in cores:
            users[core] = users.get(core, 0) + 1
    part, total, limit = sum(1 / users[core] for core in affinities[index]), float(len(users)), _cores_of(quota)
    limited = limit is not None and limit / len(affinities) < part
    return CoreShare(
        limit / len(affinities) if limit is not None and limited else part,
        len(affinities[index]),
        len(affinities),
        total if limit is None else min(total, limit),
        limit if limited else None,
    )


def usable_cores(quota: Path = _QUOTA) -> int:
    """Return the number of cores that this process may use, by its CPU affinity and its container's `quota`."""
    return own_share(quota).whole


def _cores_of(quota: Path) -> float | None:
    """Return the cores that a container's quota allows; None where there is no container, or cgroups of version 1."""
    try:
        allowed, period = quota.read_text().split()
        return None if allowed == "max" else int(allowed) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return None
