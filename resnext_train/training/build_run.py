"""Build a run: load its checkpoint, build all parts, prepare the run folder, log the start."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from resnext_train.checkpoint import checkpoint_file
from resnext_train.checkpoint.checkpoint_writer import CheckpointWriter
from resnext_train.checkpoint.resume import ResumePoint, branch_from
from resnext_train.compute.loss import TrainingLoss
from resnext_train.data.build_loaders import build_color_transform, build_eval_loader
from resnext_train.data.loader_workers import worker_count
from resnext_train.data.slow_loader import Workers
from resnext_train.distributed.flag_sync import FlagSync
from resnext_train.distributed.stop_signals import StopSignals
from resnext_train.errors import InputError, printable
from resnext_train.models.build_model import auxiliary_weight, build_model
from resnext_train.models.weight_conversion import find_state_dict, load_weights
from resnext_train.run_dir.environment import environment
from resnext_train.run_dir.run_logger import RunLogger, open_log
from resnext_train.run_dir.run_paths import RunDir
from resnext_train.training.optimizer import build_optimizer
from resnext_train.training.run_state import load_run_state_dict, read_best
from resnext_train.training.setup import Setup
from resnext_train.training.throughput import DataWait
from resnext_train.training.train_step import TrainStep
from resnext_train.training.training_run import Progress, StepFlags, TrainingRun


def build_run(setup: Setup, folder: RunDir, resume: ResumePoint, signals: StopSignals) -> TrainingRun:
    """Build a run in the state of `resume`'s checkpoint, or fresh where there is none, and log its start."""
    recipe, context = setup.recipe, setup.context
    state, path = _load(setup, folder, resume)
    model = build_model(recipe.model, setup.num_classes, recipe.train.seed)
    if state is None and recipe.model.weights:
        _fine_tune(model, setup)
    model.to(context.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    if recipe.train.compile:
        model.compile()
    optimizer = build_optimizer(recipe.optimizer, model)
    step = TrainStep(
        model,
        optimizer,
        build_color_transform(recipe),
        setup.precision,
        context,
        setup.plan.micro_batches,
        TrainingLoss(recipe.train.label_smoothing, auxiliary_weight(recipe.model)),
        recipe.optimizer.clip_norm,
        recipe.train.seed,
    )
    schedule, progress = setup.schedule(), Progress()
    if state is not None:
        best = context.gather(read_best(folder) if context.is_main else None)[0]
        progress = context.run_on_all_ranks(lambda: load_run_state_dict(state, setup, best, step, schedule))
    step.warm_up_ddp_buckets(recipe.train.micro_batch, recipe.augment.size)

    def prepare() -> RunLogger:
        folder.check_room(_bytes_of(model, optimizer), recipe.checkpoint.keep)
        if path is not None:
            branch_from(folder, path, progress.step // setup.plan.steps_per_epoch)
        folder.create(recipe.to_yaml())
        logged = state["progress"]["step"] if state else 0
        epochs, per_epoch = recipe.train.epochs, setup.plan.steps_per_epoch
        return open_log(folder, recipe.log.tensorboard, logged, epochs, per_epoch, setup.total_steps)

    log = context.run_on_all_ranks(lambda: prepare() if context.is_main else RunLogger())
    if context.is_main:
        folder.write_state("running", progress.step)
    log.write("start", step=progress.step, **environment(), **_effective(setup))
    val_loader = build_eval_loader(recipe, setup.evaluation.images, context)
    workers = Workers(*(worker_count(w, context.local_world_size) for w in (recipe.data.workers, "auto")))
    data_wait = DataWait(workers, setup.splits.train.storage)
    checkpoint_writer = CheckpointWriter(folder, recipe.checkpoint.keep)
    flag_sync = FlagSync(context, len(StepFlags._fields))
    return TrainingRun(
        setup, folder, log, step, schedule, val_loader, progress, data_wait, checkpoint_writer, signals, flag_sync
    )


def _load(setup: Setup, folder: RunDir, resume: ResumePoint) -> tuple[dict[str, Any] | None, Path | None]:
    """Load the first undamaged checkpoint of `resume`: its state and its path, or None where the run starts fresh."""
    context = setup.context

    def load() -> tuple[dict[str, Any] | None, Path | None, list[str]]:
        try:
            return checkpoint_file.load_first(resume.checkpoints) if resume.checkpoints else (None, None, [])
        except checkpoint_file.DamagedError as error:
            raise InputError(
                f"{error}; continue from another one by --resume PATH, or start a new run in another --out"
            ) from error

    state, path, problems = context.run_on_all_ranks(load)
    if len(set(context.gather(str(path)))) > 1:
        raise InputError(f"the hosts see different run folders; put {folder.path} on a file system that all share")
    if context.is_main and state:
        for problem in problems:
            print(problem, file=sys.stderr)
        print(printable(f"continuing from {path}, step {state['progress']['step']}"), flush=True)
    return state, path


def _bytes_of(model: nn.Module, optimizer: Optimizer) -> int:
    """Return the approximate size of a checkpoint."""
    tensors = list(model.state_dict().values())
    tensors += [t for state in optimizer.state.values() for t in state.values()]
    return sum(int(t.numel()) * int(t.element_size()) + 300 for t in tensors) + 100_000


def _fine_tune(model: nn.Module, setup: Setup) -> None:
    """Load the weights that the recipe names, and print what they are.

    A checkpoint of this tool names its classes: where the data has others, its classifier is left out, even if their
    number is the same.
    """
    section = setup.recipe.model
    path = Path(section.weights or "").expanduser()
    content = setup.context.run_on_all_ranks(lambda: checkpoint_file.load_file(path))
    weights = find_state_dict(content, str(path))
    if checkpoint_file.is_ours(content):
        same = tuple(content["classes"]) == setup.splits.classes
        kind = "a checkpoint of resnext-train"
        loaded = load_weights(model, weights, str(path), section, "fitting" if same else "new", kind)
    else:
        loaded = load_weights(model, weights, str(path), section, "fitting")
    if setup.context.is_main:
        print(printable(f"weights: {loaded}"), flush=True)


def _effective(setup: Setup) -> dict[str, Any]:
    """Return the recipe's effective values on this machine, for the start event."""
    return {
        "world_size": setup.context.world_size,
        "device": str(setup.context.device),
        "precision": setup.precision.name,
        "threads": torch.get_num_threads(),
        "images": setup.splits.storage,
        "batch_size": setup.plan.batch_size,
        "groups": setup.plan.micro_batches,
        "steps_per_epoch": setup.plan.steps_per_epoch,
        "total_steps": setup.total_steps,
    }
