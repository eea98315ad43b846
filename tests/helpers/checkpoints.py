"""Checkpoints without a run."""

from __future__ import annotations

from typing import Any

import torch


def checkpoint(step: int, **parts: Any) -> dict[str, Any]:
    """The content of a checkpoint after `step` steps, with other `parts` where they are given."""
    totals = {"loss": 0.0, "correct": 0, "seen": 0, "unreadable": 0}
    content = {
        "model": {"w": torch.zeros(4)},
        "optimizer": {"state": {0: {"momentum_buffer": torch.zeros(4)}}, "param_groups": [{"params": [0]}]},
        "scaler": {},
        "schedule": {},
        "plan": {"images": 64, "steps_per_epoch": 4},
        "meter": {"window": totals, "epoch": totals, "run": totals},
        "rng": torch.get_rng_state(),
        "skipped": {"total": 0, "in_a_row": 0},
        "progress": {"step": step, "epoch_is_open": False, "seconds": 0.0, "epoch_began": 0.0, "last": None},
        "checkpointer": {"best": None},
        "recipe": {},
        "classes": ["cat", "dog"],
        "images": {"train": "files", "val": "files"},
        "version": "0.1.0",
    }
    return content | parts
