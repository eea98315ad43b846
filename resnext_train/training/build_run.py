"""How a run begins: its checkpoint found, everything built, the run folder made ready, the start announced."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from resnext_train.checkpoint import checkpoint_file
from resnext_train.checkpoint.checkpoint_writer import Saver
from resnext_train.checkpoint.resume import ResumePoint, branch_off
from resnext_train.compute.loss import TrainingLoss
from resnext_train.data.build_loaders import build_eval_loader, build_photometric
from resnext_train.data.loader_workers import worker_count
from resnext_train.data.slow_loader import Workers
from resnext_train.distributed.flag_sync import Agreement
from resnext_train.distributed.stop_signals import StopSignals
from resnext_train.errors import InputError, printable
from resnext_train.models.build_model import auxiliary_weight, build_model
from resnext_train.models.weight_conversion import find_state_dict, load_weights
from resnext_train.run_dir.environment import environment
from resnext_train.run_dir.run_logger import RunLog, open_log
from resnext_train.run_dir.run_paths import RunFolder
from resnext_train.training.optimizer import build_optimizer
from resnext_train.training.run_state import best_in, restore
from resnext_train.training.setup import Setup
from resnext_train.training.throughput import DataWait
from resnext_train.training.train_step import TrainStep
from resnext_train.training.training_run import Progress, Run, Wishes


def start(setup: Setup, folder: RunFolder, resume: ResumePoint, signals: StopSignals) -> Run:
    """Build everything, at the state of `resume`'s checkpoint if there is one, and announce the run."""
    recipe, process = setup.recipe, setup.process
    state, path = _load(setup, folder, resume)
    model = build_model(recipe.model, setup.num_classes, recipe.train.seed)
    if state is None and recipe.model.weights:
        _fine_tune(model, setup)
    model.to(process.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    if recipe.train.compile:
        model.compile()
    optimizer = build_optimizer(recipe.optimizer, model)
    step = TrainStep(
        model,
        optimizer,
        build_photometric(recipe),
        setup.precision,
        process,
        setup.plan.groups,
        TrainingLoss(recipe.train.label_smoothing, auxiliary_weight(recipe.model)),
        recipe.optimizer.clip_norm,
        recipe.train.seed,
    )
    schedule, progress = setup.schedule(), Progress()
    if state is not None:
        best = process.gather(best_in(folder) if process.is_main else None)[0]
        progress = process.together(lambda: restore(state, setup, best, step, schedule))
    step.settle_buckets(recipe.train.micro_batch, recipe.augment.size)

    def prepare() -> RunLog:
        folder.check_room(_bytes_of(model, optimizer), recipe.checkpoint.keep)
        if path is not None:
            branch_off(folder, path, progress.step // setup.plan.steps_per_epoch)
        folder.create(recipe.to_yaml())
        logged = state["progress"]["step"] if state else 0
        epochs, per_epoch = recipe.train.epochs, setup.plan.steps_per_epoch
        return open_log(folder, recipe.log.tensorboard, logged, epochs, per_epoch, setup.total_steps)

    log = process.together(lambda: prepare() if process.is_main else RunLog())
    if process.is_main:
        folder.write_state("running", progress.step)
    log.write("start", step=progress.step, **environment(), **_effective(setup))
    val_loader = build_eval_loader(recipe, setup.evaluation.images, process)
    workers = Workers(*(worker_count(w, process.local_world) for w in (recipe.data.workers, "auto")))
    data_wait = DataWait(workers, setup.splits.train.storage)
    saver = Saver(folder, recipe.checkpoint.keep)
    agreement = Agreement(process, len(Wishes._fields))
    return Run(setup, folder, log, step, schedule, val_loader, progress, data_wait, saver, signals, agreement)


def _load(setup: Setup, folder: RunFolder, resume: ResumePoint) -> tuple[dict[str, Any] | None, Path | None]:
    """The state of the first whole checkpoint among `resume`'s, and its path; None where the run starts anew."""
    process = setup.process

    def load() -> tuple[dict[str, Any] | None, Path | None, list[str]]:
        try:
            return checkpoint_file.load_first(resume.checkpoints) if resume.checkpoints else (None, None, [])
        except checkpoint_file.DamagedError as error:
            raise InputError(
                f"{error}; continue from another one by --resume PATH, or start anew in another --out"
            ) from error

    state, path, problems = process.together(load)
    if len(set(process.gather(str(path)))) > 1:
        raise InputError(f"the hosts see different run folders; put {folder.path} on a file system that all share")
    if process.is_main and state:
        for problem in problems:
            print(problem, file=sys.stderr)
        print(printable(f"continuing from {path}, step {state['progress']['step']}"), flush=True)
    return state, path


def _bytes_of(model: nn.Module, optimizer: Optimizer) -> int:
    """About how large a checkpoint is."""
    tensors = list(model.state_dict().values())
    tensors += [t for state in optimizer.state.values() for t in state.values()]
    return sum(int(t.numel()) * int(t.element_size()) + 300 for t in tensors) + 100_000


def _fine_tune(model: nn.Module, setup: Setup) -> None:
    """Start from the weights that the recipe names, and print what was found there.

    A checkpoint of this tool says which classes it knows: where the data has others, its classifier is left out even if
    they are as many.
    """
    section = setup.recipe.model
    path = Path(section.weights or "").expanduser()
    content = setup.process.together(lambda: checkpoint_file.load_file(path))
    weights = find_state_dict(content, str(path))
    if checkpoint_file.is_ours(content):
        same = tuple(content["classes"]) == setup.splits.classes
        kind = "a checkpoint of resnext-train"
        told = load_weights(model, weights, str(path), section, "fitting" if same else "new", kind)
    else:
        told = load_weights(model, weights, str(path), section, "fitting")
    if setup.process.is_main:
        print(printable(f"weights: {told}"), flush=True)


def _effective(setup: Setup) -> dict[str, Any]:
    """What the recipe came to on this machine, for the log."""
    return {
        "world_size": setup.process.world,
        "device": str(setup.process.device),
        "precision": setup.precision.name,
        "threads": torch.get_num_threads(),
        "images": setup.splits.storage,
        "batch_size": setup.plan.batch_size,
        "groups": setup.plan.groups,
        "steps_per_epoch": setup.plan.steps_per_epoch,
        "total_steps": setup.total_steps,
    }
