"""Between a run and the content of its checkpoints; checkpoint_file.py describes the format."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import Any

import torch
from torch.optim import Optimizer

from resnext_train import __version__
from resnext_train.checkpoint import checkpoint_file
from resnext_train.checkpoint.resume import describe, fixed_differences
from resnext_train.config import recipe_from_dict
from resnext_train.errors import InputError, printable
from resnext_train.run_dir.run_paths import RunDir
from resnext_train.training.lr_schedule import Schedule
from resnext_train.training.setup import Setup
from resnext_train.training.train_step import TrainStep
from resnext_train.training.training_run import Progress, TrainingRun


def run_state_dict(run: TrainingRun) -> dict[str, Any]:
    """Return the content of a checkpoint."""
    return {
        "model": run.model.state_dict(),
        "optimizer": run.step.optimizer.state_dict(),
        "scaler": run.step.scaler.state_dict(),
        "schedule": run.schedule.state_dict(),
        "plan": {"images": run.setup.plan.images, "steps_per_epoch": run.setup.plan.steps_per_epoch},
        "meter": run.step.meter.state_dict(),
        "skipped": run.step.watch.state_dict(),
        "rng": torch.get_rng_state(),
        "progress": asdict(run.progress),
        "recipe": run.setup.recipe.to_dict(),
        "classes": list(run.setup.splits.classes),
        "images": run.setup.splits.storage,
        "version": __version__,
    }


def load_run_state_dict(
    state: dict[str, Any], setup: Setup, best: dict[str, Any] | None, step: TrainStep, schedule: Schedule
) -> Progress:
    """Load a checkpoint's state into a freshly built run, and print what the recipe changes; return the progress.

    `best` is the evaluation that the run folder's best.pt belongs to.

    Raises:
        InputError: the checkpoint has other classes or another network, or its step does not exist in this recipe.
    """
    stored = recipe_from_dict(state["recipe"], "recipe in the checkpoint")
    changed = fixed_differences(stored, setup.recipe)
    if changed and setup.context.is_main:
        print(printable(f"continuing with a changed recipe: {describe(changed)}"), flush=True)
    if tuple(state["classes"]) != setup.splits.classes:
        raise InputError("the checkpoint was trained on other classes than the data has; use the same data.root")
    kept = state["images"]
    if setup.context.is_main and kept != setup.splits.storage:
        for split, text in setup.splits.storage.items():
            print(printable(f"{split} images: {text}; until now: {kept[split]}"), flush=True)
    progress = _restored_progress(state, setup)
    if progress.best is not None and not _same_evaluation(best, progress.best):
        progress.best = None  # best.pt is elsewhere, or of a later epoch: the next evaluation writes a new one
    try:
        step.model.load_state_dict(state["model"])
    except RuntimeError as error:
        raise InputError(f"the checkpoint holds another network than the recipe's {setup.recipe.model.arch}") from error
    step.statistics.reload()
    if stored.optimizer.name == setup.recipe.optimizer.name:
        _restore_optimizer(step.optimizer, state["optimizer"])
    if state["scaler"]:
        step.scaler.load_state_dict(state["scaler"])
    step.meter.load_state_dict(state["meter"])
    step.watch.load_state_dict(state["skipped"])
    if stored.schedule.name == setup.recipe.schedule.name:
        schedule.load_state_dict(state["schedule"])
    torch.set_rng_state(state["rng"])
    return progress


def _restored_progress(state: dict[str, Any], setup: Setup) -> Progress:
    """Return the progress to continue from; a recipe with other epoch lengths continues after as many whole epochs."""
    progress, plan = Progress(**state["progress"]), setup.plan
    before = state["plan"]
    if plan.images != before["images"]:
        raise InputError(
            f"the data has {plan.images} training images, but the checkpoint's run had {before['images']}; "
            "use the same images, or start a new run"
        )
    if plan.steps_per_epoch != before["steps_per_epoch"]:
        epochs, over = divmod(progress.step, before["steps_per_epoch"])
        if over:
            raise InputError("the batch size can only be changed at the end of an epoch; use another checkpoint")
        progress.step = epochs * plan.steps_per_epoch
    done, total = progress.step, setup.total_steps
    if done > total or (done == total and progress.last is None and not progress.epoch_is_open):
        raise InputError(f"the checkpoint is at step {done}, but the recipe ends at step {total}; raise train.epochs")
    return progress


def read_best(folder: RunDir) -> dict[str, Any] | None:
    """Return the evaluation that the run folder's best.pt belongs to, or None where there is no best.pt."""
    path = folder.checkpoints / "best.pt"
    if not path.is_file():
        return None
    try:
        best: dict[str, Any] | None = checkpoint_file.load(path)["progress"]["best"]
    except InputError as error:
        print(f"{error}; the next evaluation writes a new one", file=sys.stderr, flush=True)
        return None
    return best


def _same_evaluation(one: dict[str, Any] | None, other: dict[str, Any]) -> bool:
    """Whether two results are of the same evaluation. Losses are not compared: NaN equals nothing."""
    keys = ("epoch", "count", "top1_correct", "top5_correct")
    return one is not None and all(one[key] == other[key] for key in keys)


def _restore_optimizer(optimizer: Optimizer, state: dict[str, Any]) -> None:
    """Load the momentum but keep the settings: those are the recipe's, which may have been changed on purpose."""
    settings = [{k: v for k, v in group.items() if k != "params"} for group in optimizer.param_groups]
    optimizer.load_state_dict(state)
    for group, own in zip(optimizer.param_groups, settings, strict=True):
        group.update(own)
        for parameter in group["params"] if group.get("momentum") else ():
            # Momentum that was off until now starts from zero, as in a new run.
            optimizer.state[parameter].setdefault("momentum_buffer", torch.zeros_like(parameter))
