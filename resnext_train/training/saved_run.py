"""The saved run that a run continues: find its checkpoint, and fit it to the recipe and the data as they are now."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, NamedTuple

import torch

from resnext_train.checkpoint import checkpoint_file
from resnext_train.checkpoint.resume import choose_checkpoint, describe, fixed_differences
from resnext_train.config import recipe_from_dict
from resnext_train.errors import InputError, printable
from resnext_train.run_dir.run_paths import RunDir
from resnext_train.run_dir.sink import LogEnd
from resnext_train.training.setup import Setup


class SavedRun(NamedTuple):
    """A checkpoint to continue from."""

    path: Path
    is_last: bool
    """Whether it is the last.pt of the run's own folder."""
    setup: Setup
    """That of the run, with what its checkpoint's recipe leaves open as it was."""
    log_end: LogEnd
    """Where the checkpoint's run was, in its own steps."""
    state: dict[str, Any]
    """What the parts of a run load, by their names there. A part that is missing starts afresh."""


def load_saved_run(setup: Setup, folder: RunDir, resume: str) -> SavedRun | None:
    """Load the checkpoint that `resume` means for a run folder; None for a new run. Print what it is.

    Call it under the folder's lock, on all ranks.

    Raises:
        InputError: see `choose_checkpoint`; or all are damaged, the hosts see different folders, or the checkpoint does
            not fit the recipe and the data.
    """
    context = setup.context
    paths = context.run_on_main(lambda: choose_checkpoint(folder, setup.recipe, resume))
    if not paths:
        return None

    def load() -> tuple[dict[str, Any], Path, list[str]]:
        try:
            return checkpoint_file.load_first(paths)
        except checkpoint_file.DamagedError as error:
            raise InputError(
                f"{error}; continue from another one by --resume PATH, or start a new run in another --out"
            ) from error

    content, path, problems = context.run_on_all_ranks(load)
    if len(set(context.gather(str(path)))) > 1:
        raise InputError(f"the hosts see different run folders; put {folder.path} on a file system that all share")
    given, setup = setup.recipe.train.last_batch, setup.as_continued(content["recipe"])
    progress = content["progress"]
    best = context.run_on_main(lambda: _evaluation_of_best(folder))
    state = context.run_on_all_ranks(lambda: _fitted(content, setup, best))
    if context.is_main:
        for problem in problems:
            print(problem, file=sys.stderr)
        finished = ", the end of the run: nothing is left to train" if _is_at_end(content, setup) else ""
        print(printable(f"continuing from {path}, step {progress['step']}{finished}"), flush=True)
        for line in _changes(content, setup):
            print(printable(line), flush=True)
        if (kept := setup.recipe.train.last_batch) != given:
            print(f"train.last_batch={kept}, as this run was trained until now", flush=True)
    is_last = path.name == folder.last.name and path.parent.resolve() == folder.checkpoints.resolve()
    return SavedRun(path, is_last, setup, LogEnd(progress["step"], progress["epoch_is_open"]), state)


def _is_at_end(content: dict[str, Any], setup: Setup) -> bool:
    progress = content["progress"]
    return bool(progress["step"] == setup.total_steps and not progress["epoch_is_open"])


def _changes(content: dict[str, Any], setup: Setup) -> list[str]:
    """Return a line for each thing that is not as it was when the checkpoint was written."""
    lines = []
    if changed := fixed_differences(recipe_from_dict(content["recipe"], "recipe in the checkpoint"), setup.recipe):
        lines.append(f"continuing with a changed recipe: {describe(changed)}")
    for split, text in setup.splits.storage.items():
        if content["images"] != setup.splits.storage:
            lines.append(f"{split} images: {text}; until now: {content['images'][split]}")
    return lines


def _fitted(content: dict[str, Any], setup: Setup, best: dict[str, Any] | None) -> dict[str, Any]:
    """Return the state to load; `best` is the evaluation that the run folder's best.pt belongs to.

    Raises:
        InputError: the checkpoint has other classes or images, or its step does not exist in this recipe.
    """
    stored = recipe_from_dict(content["recipe"], "recipe in the checkpoint")
    if tuple(content["classes"]) != setup.splits.classes:
        raise InputError("the checkpoint was trained on other classes than the data has; use the same data.root")
    state = dict(content)
    if stored.optimizer.name != setup.recipe.optimizer.name:
        del state["optimizer"]
    if stored.schedule.name != setup.recipe.schedule.name:
        del state["schedule"]
    if setup.recipe.ema.decay is not None and state.get("ema") is None:  # the average begins as the weights
        state["ema"] = {"updates": torch.zeros((), dtype=torch.int64), "weights": state["model"]}
    if not state["scaler"]:  # the loss was not scaled
        del state["scaler"]
    saved_best = state["checkpointer"]["best"]
    if saved_best is not None and not _same_evaluation(best, saved_best):
        # Where best.pt is elsewhere, or of a later epoch, the next evaluation writes a new one.
        state["checkpointer"] = {"best": best if _is_earlier(best, saved_best) else None}
    return {**state, "progress": _fitted_progress(content, setup)}


def _fitted_progress(content: dict[str, Any], setup: Setup) -> dict[str, Any]:
    """Return the progress to continue from; a recipe with other epoch lengths continues after as many whole epochs."""
    progress, plan, before = dict(content["progress"]), setup.plan, content["plan"]
    if plan.images != before["images"]:
        raise InputError(
            f"the data has {plan.images} training images, but the checkpoint's run had {before['images']}; "
            "use the same images, or start a new run"
        )
    if plan.steps_per_epoch != before["steps_per_epoch"]:
        epochs, over = divmod(progress["step"], before["steps_per_epoch"])
        if over:
            raise InputError(
                "the steps of an epoch (train.batch_size, train.last_batch) can only change between epochs, and the "
                f"checkpoint is {over} steps into one; leave them as they were, or start a new run in another --out"
            )
        progress["step"] = epochs * plan.steps_per_epoch
    done, total = progress["step"], setup.total_steps
    if done > total or (done == total and progress["last"] is None and not progress["epoch_is_open"]):
        raise InputError(f"the checkpoint is at step {done}, but the recipe ends at step {total}; raise train.epochs")
    return progress


def _evaluation_of_best(folder: RunDir) -> dict[str, Any] | None:
    """Return the evaluation that the run folder's best.pt belongs to, or None where there is no best.pt."""
    if not folder.best.is_file():
        return None
    try:
        best: dict[str, Any] | None = checkpoint_file.load(folder.best)["checkpointer"]["best"]
    except InputError as error:
        print(f"{error}; the next evaluation writes a new one", file=sys.stderr, flush=True)
        return None
    return best


def _same_evaluation(one: dict[str, Any] | None, other: dict[str, Any]) -> bool:
    """Whether two results are of the same evaluation. Losses are not compared: NaN equals nothing."""
    keys = ("epoch", "count", "top1_correct", "top5_correct")
    return one is not None and all(one[key] == other[key] for key in keys)


def _is_earlier(one: dict[str, Any] | None, other: dict[str, Any]) -> bool:
    """Whether a result is one of the same images after fewer epochs: that of the last best.pt that could be written."""
    return one is not None and one["epoch"] < other["epoch"] and one["count"] == other["count"]
