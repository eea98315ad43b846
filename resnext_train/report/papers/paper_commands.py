"""The commands that fill a row of a paper's table. Imports no torch."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Sequence
from itertools import count, islice
from pathlib import Path

from resnext_train.config import RUNS
from resnext_train.report.papers.paper_table_data import TRAINING, Protocol, Row
from resnext_train.report.run_record import EVALUATION, RunRecord
from resnext_train.run_dir.run_paths import RunDir

_ROOTS = {"cifar": "/path/to/cifar", "imagenet5k": "/path/to/imagenet5k"}
"""Where the images of a recipe are, by its folder; those of recipes without one are ImageNet-1K's."""

_SECOND = RUNS / "paper"
"""Where a run is to be whose default folder is taken."""


def commands_for(
    row: Row, runs: Sequence[RunRecord], unevaluated: Sequence[RunRecord], taken: Collection[Path]
) -> tuple[str, ...]:
    """Return what is to be run for a row, in this order.

    `runs` count for it; those that are `unevaluated` lack a result under its protocol. `taken` are the resolved folders
    of runs that the same command would not continue.
    """
    evaluations = tuple(_evaluation(run.folder, row.protocol) for run in unevaluated)
    if row.recipe is None or len(runs) >= row.runs:
        return evaluations
    data = f"data.root={_ROOTS.get(row.recipe.partition('/')[0], '/path/to/imagenet')}"
    if row.runs == 1:
        folder = _free(row.recipe, taken)
        out = [] if folder == RUNS / row.recipe else ["--out", str(folder)]
        evaluation = [] if row.protocol == TRAINING else [_evaluation(folder, row.protocol)]
        return (shlex.join(["resnext", "train", "--config", row.recipe, *out, data]), *evaluation)
    assert row.protocol == TRAINING  # what a paper states of several runs is of its own test images
    present = {run.seed for run in runs}
    seeds = list(islice((seed for seed in count() if seed not in present), row.runs - len(runs)))
    names = (f"{row.recipe}-seed{seed}" for seed in seeds)
    out = [] if all(_free(name, taken) == RUNS / name for name in names) else ["--out", str(_SECOND)]
    return (shlex.join(["resnext", "sweep", "--config", row.recipe, "--seeds", _range(seeds), *out, data]),)


def _free(name: str, taken: Collection[Path]) -> Path:
    """Return the default folder of a run called `name`, or another one where that is taken."""
    return _SECOND / name if (RUNS / name).resolve() in taken else RUNS / name


def _range(seeds: Sequence[int]) -> str:
    """Return seeds as `resnext sweep --seeds` takes them.

    >>> _range([2, 3, 4]), _range([1]), _range([1, 4])
    ('2:5', '1', '1,4')
    """
    if len(seeds) > 1 and list(seeds) == list(range(seeds[0], seeds[-1] + 1)):
        return f"{seeds[0]}:{seeds[-1] + 1}"
    return ",".join(map(str, seeds))


def _evaluation(folder: Path, protocol: Protocol) -> str:
    """Return the command that evaluates the final weights of the run in `folder` under a protocol."""
    results = folder / f"{EVALUATION}_{protocol.name}"
    words = ["resnext", "eval", "--ckpt", str(RunDir(folder).last), *protocol.overrides, "--out", str(results)]
    return shlex.join(words)
