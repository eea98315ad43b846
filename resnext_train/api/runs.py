"""The commands that train and evaluate, as functions of a program."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from resnext_train.checkpoint.checkpoint_path import checkpoint_path
from resnext_train.config import RUNS, Recipe, default_name, loaded_recipe
from resnext_train.distributed.dist_context import connect
from resnext_train.errors import InputError
from resnext_train.inference.evaluate_networks import evaluate_networks
from resnext_train.inference.evaluation_request import EvaluationRequest
from resnext_train.models.architecture import check_network
from resnext_train.run_dir.console import print_line, print_warning
from resnext_train.run_dir.run_paths import RunDir
from resnext_train.training import run
from resnext_train.training.train_request import train_request

PathLike = str | os.PathLike[str]


def train(
    recipe: PathLike | Recipe,
    out: PathLike | None = None,
    overrides: Sequence[str] = (),
    resume: PathLike = "auto",
) -> dict[str, Any]:
    """Train a network from a recipe, given by name, path, or itself, as `resnext train` does; return the summary.

    `out` is the run folder; without, it is that of the command, runs/NAME or runs/NAME-seedN. `resume` is auto, never
    or a path, as the command's. In processes that torchrun started, all call it, and are the ranks of one run. The
    summary holds the results of the last and the best evaluation, and what the run took, as summary.json does.

    >>> few = ["train.epochs=1", "train.max_steps=2", "data.val_images=20", "log.to=[]"]
    >>> summary = train("smoke", out="runs/smoke", overrides=few)
    epoch 1/1...
    >>> summary["steps"], summary["last"]["count"]
    (2, 20)

    Raises:
        InputError: the recipe, the data or the run folder cannot be used.
        FaultError, Preempted: of `resnext_train.errors`: a fault ended the run, or a signal, at which it was saved.
    """
    loaded = loaded_recipe(recipe, overrides)
    if out is None:
        if isinstance(recipe, Recipe):
            raise InputError("out: name a run folder for a recipe that is not in a file")
        out = RUNS / default_name(os.fspath(recipe), loaded)
    request = train_request(loaded, RunDir(Path(out)), os.fspath(resume))
    with run.prepared(request) as setup:
        if setup.context.is_main:
            for note in request.notes:
                print_line(note)
            for warning in setup.warnings():
                print_warning(f"warning: {warning}")
        return run.train(setup, request.folder, request.resume)


def evaluate(
    path: PathLike | Sequence[PathLike],
    data: PathLike | None = None,
    overrides: Sequence[str] = (),
    recipe: PathLike | Recipe | None = None,
    classes: PathLike | None = None,
    weights: str = "auto",
) -> dict[str, Any]:
    """Evaluate a network, or several as an ensemble, as `resnext eval` does; return what its --json writes.

    `path` is a run folder, a checkpoint, an export or foreign weights, which need the `recipe` of their network, and
    their `classes` where the data has fewer. `data` is a folder with train/ and val/, or one of classes, in place of
    the recipe's. `weights` is auto, model or ema, as the command's --weights. In processes that torchrun started, all
    call it.

    >>> evaluate("runs/smoke", overrides=["data.val_images=12"])["count"]
    12

    Raises:
        InputError: a file, a recipe or the images cannot be used.
        FaultError: of `resnext_train.errors`: a rank is gone.
    """
    paths = [path] if isinstance(path, (str, os.PathLike)) else path
    if data is not None:
        overrides = ["data.source=folder", f"data.root={os.fspath(data)}", *overrides]
    given = None
    if recipe is not None:
        loaded = loaded_recipe(recipe, overrides)
        check_network(loaded)
        given = loaded.recipe
    request = EvaluationRequest(
        checkpoints=tuple(checkpoint_path(os.fspath(one)) for one in paths),
        recipe=given,
        overrides=tuple(overrides),
        weights=weights,
        classes=None if classes is None else os.fspath(classes),
    )
    with connect(request.patience_seconds) as context:
        return evaluate_networks(request, context).values
