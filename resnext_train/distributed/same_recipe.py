"""Check that all ranks were given the same recipe."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from resnext_train.distributed.dist_context import DistContext

_OF_A_HOST = {"data.root", "data.workers"}
"""Keys that may differ between hosts."""

SAME_COMMAND = "all processes of a run need the same command, and so do tasks of one srun, which are one run"
"""What to do about commands that differ."""


def check_same_recipe(sections: Mapping[str, Mapping[str, Any]], context: DistContext) -> None:
    """Check that all ranks were given a recipe of the same `sections`, but for what may differ between hosts.

    Raises:
        InputError: they were not; names the first key that differs, and the ranks.
    """
    own = {
        f"{section}.{key}": repr(value)
        for section, content in sections.items()
        for key, value in content.items()
        if f"{section}.{key}" not in _OF_A_HOST
    }
    of_all = context.gather(own)
    for name in dict.fromkeys(name for of_rank in of_all for name in of_rank):
        if len({of_rank.get(name) for of_rank in of_all}) > 1:
            context.check_agreement("was given", f"{name}={own.get(name)}", SAME_COMMAND)
