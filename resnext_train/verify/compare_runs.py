"""Compare two runs bit by bit."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_TIMES = {"images_per_s", "data_wait", "flops_per_s", "flops_per_s_each", "memory_mb", "seconds", "epoch_began"}
"""Keys of logged events and of a checkpoint's progress that depend on the machine, and so differ from run to run."""


def read_events(log: Path) -> Iterator[dict[str, Any]]:
    """Yield the events of a log; a half-written last line is left out."""
    for line in log.read_text(encoding="utf-8").splitlines(keepends=True):
        if line.endswith("\n"):
            yield json.loads(line)


def compare_runs(whole: Path, killed: Path) -> tuple[int, list[str]]:
    """Compare all of last.pt and the logged steps and epochs; return how many items, and what differs in words."""
    import torch

    compared = 0
    differences: list[str] = []
    one, two = (
        dict(_leaves(torch.load(run / "checkpoints" / "last.pt", map_location="cpu", weights_only=True)))
        for run in (whole, killed)
    )
    for run, leaves in ((whole, one), (killed, two)):
        logged = [e for e in read_events(run / "log.jsonl") if e["event"] in ("step", "epoch")]
        for event in logged:
            name = f"log.jsonl, {event['event']} {event['step']}"
            if name in leaves:
                differences.append(f"{name} is logged twice in {run.name}")
            leaves[name] = {k: v for k, v in event.items() if k not in _TIMES}
    for name in sorted(one.keys() | two.keys()):
        compared += 1
        if name not in one or name not in two:
            differences.append(f"{name} is missing in one run")
        elif not _same(one[name], two[name]):
            differences.append(f"{name} differs")
    return compared, differences


def _leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Yield everything in a checkpoint with its place, except what depends on the clock."""
    if isinstance(value, (dict, list)):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            if key not in _TIMES:
                yield from _leaves(inner, f"{name}/{key}" if name else str(key))
    else:
        yield name, value


def _same(one: Any, two: Any) -> bool:
    """Return whether two values have the same bits; NaN equals itself."""
    import torch

    if isinstance(one, torch.Tensor) and isinstance(two, torch.Tensor):
        alike = (one.dtype, one.shape) == (two.dtype, two.shape)
        return alike and one.contiguous().numpy().tobytes() == two.contiguous().numpy().tobytes()
    return repr(one) == repr(two)
