"""A training run, from recipe to final checkpoint."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader

from resnext_train import checkpoint
from resnext_train.data.build import (
    build_eval_loader,
    build_photometric,
    build_train_loader,
)
from resnext_train.data.loader import Group, Unreadable, on_device, readable, telling
from resnext_train.data.waiting import Workers
from resnext_train.data.workers import worker_count, worker_deaths_explained
from resnext_train.errors import InputError
from resnext_train.evaluate import evaluate
from resnext_train.losses import TrainingLoss
from resnext_train.models.build import auxiliary_weight, build_model
from resnext_train.models.convert import find_state_dict, load_weights
from resnext_train.optim import build_optimizer
from resnext_train.resume import ResumePoint
from resnext_train.run import DataWait, Progress, Run, Setup
from resnext_train.runlog import RunFolder, RunLog, environment, open_log
from resnext_train.state import capture, restore
from resnext_train.step import TrainStep


@worker_deaths_explained()
def train(setup: Setup, folder: RunFolder, resume: ResumePoint) -> dict[str, Any]:
    """Train to the end of the recipe and return the summary; every process of the run calls this.

    Raises:
        InputError: a run folder that cannot be written, a checkpoint that does not fit, an image that cannot be read,
            a loader process that died.
    """
    run = _start(setup, folder, resume)
    try:
        loader = build_train_loader(
            setup.recipe, setup.splits.train, setup.plan, setup.process, run.progress.step, setup.total_steps
        )
        groups = run.clock.timed(_told(run, loader))
        while run.progress.step < setup.total_steps:
            _take_step(run, groups)
            step = run.progress.step
            at_end = step == setup.total_steps
            if at_end or step % setup.recipe.log.every == 0:
                _log_step(run)
            if at_end or step % setup.plan.steps_per_epoch == 0:
                _end_epoch(run, at_end)
            elif setup.recipe.checkpoint.every_steps and step % setup.recipe.checkpoint.every_steps == 0:
                _save(run)
        return _finish(run)
    except BaseException:
        if setup.process.is_main:
            folder.write_state("failed", run.progress.step)
        raise
    finally:
        run.log.close()


def _start(setup: Setup, folder: RunFolder, resume: ResumePoint) -> Run:
    """Build everything, at the state of `resume`'s checkpoint if there is one, and announce the run."""
    recipe, process = setup.recipe, setup.process
    if len(set(process.gather(str(resume.checkpoint)))) > 1:
        raise InputError(f"the hosts see different run folders; put {folder.path} on a file system that all share")
    state = process.together(lambda: checkpoint.load(resume.checkpoint) if resume.checkpoint else None)
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
    schedule, progress, logged = setup.schedule(), Progress(), 0
    if state is not None:
        progress = process.together(lambda: restore(state, setup, folder, step, schedule))
        logged = state["progress"]["step"]
    process.together(lambda: folder.create(recipe.to_yaml()) if process.is_main else None)
    log = RunLog()
    if process.is_main:
        epochs, per_epoch = recipe.train.epochs, setup.plan.steps_per_epoch
        log = open_log(folder, recipe.log.tensorboard, logged, epochs, per_epoch, setup.total_steps)
        folder.write_state("running", progress.step)
    log.write("start", step=progress.step, **environment(), **_effective(setup))
    val_loader = build_eval_loader(recipe, setup.evaluation.images, process)
    workers = Workers(*(worker_count(w, process.local_world) for w in (recipe.data.workers, "auto")))
    data_wait = DataWait(workers, setup.splits.train.storage)
    return Run(setup, folder, log, step, schedule, val_loader, progress, data_wait)


def _told(run: Run, loader: DataLoader[Group | Unreadable]) -> Iterator[Group]:
    """The groups of `loader` on this process's device; what cannot be read goes to the log."""
    return on_device(telling(readable(loader), run.tell_unreadable), run.setup.process.device)


def _fine_tune(model: nn.Module, setup: Setup) -> None:
    """Start from the weights that the recipe names, and print what was found there.

    A checkpoint of this tool says which classes it knows: where the data has others, its classifier is left out even if
    they are as many.
    """
    section = setup.recipe.model
    path = Path(section.weights or "").expanduser()
    content = setup.process.together(lambda: checkpoint.load_file(path))
    weights = find_state_dict(content, str(path))
    if checkpoint.is_ours(content):
        same = tuple(content["classes"]) == setup.splits.classes
        kind = "a checkpoint of resnext-train"
        told = load_weights(model, weights, str(path), section, "fitting" if same else "new", kind)
    else:
        told = load_weights(model, weights, str(path), section, "fitting")
    if setup.process.is_main:
        print(f"weights: {told}", flush=True)


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


def _take_step(run: Run, groups: Iterator[Group]) -> None:
    step = run.progress.step
    size = run.setup.plan.step_size(step)
    run.step(groups, step, size, run.schedule.lr(step))
    run.clock.images += size
    run.progress.step += 1
    run.log.tick(run.setup.epoch_of(step), step % run.setup.plan.steps_per_epoch + 1)


def _log_step(run: Run) -> None:
    """Log the mean over the steps since the last such line, or since the epoch's start."""
    run.step.meter.read()
    window = run.step.meter.window
    lap = run.clock.lap()
    run.progress.seconds += lap.seconds
    step = run.progress.step - 1
    run.log.write(
        "step",
        step=step + 1,
        epoch=run.setup.epoch_of(step),
        loss=window.mean_loss,
        lr=run.schedule.lr(step),
        top1=window.top1,
        images_per_s=lap.images / lap.seconds,
        data_wait=lap.waited / lap.seconds,
    )
    if slow := run.data_wait.add(run.setup.recipe.log.every, lap):
        run.log.write("slow_data", step=step + 1, **slow)
    run.step.meter.window = type(window)()


def _end_epoch(run: Run, at_end: bool) -> None:
    """Evaluate if it is time, log the epoch, note the best, and save."""
    recipe = run.setup.recipe
    step = run.progress.step
    epoch = run.setup.epoch_of(step - 1)
    run.step.meter.read()
    totals = run.step.meter.epoch
    counts = None
    if at_end or epoch % recipe.eval.every_epochs == 0:
        blocks = _told(run, run.val_loader)
        normalise, setup = build_photometric(recipe), run.setup
        counts = evaluate(run.model, blocks, normalise, setup.precision, setup.process, setup.evaluation.outputs)
        run.schedule.observe(100 - counts.top1)
        run.progress.last = {"epoch": epoch, **counts.to_dict()}
    is_best = counts is not None and counts.top1_correct > (run.progress.best or {"top1_correct": -1})["top1_correct"]
    if is_best:
        run.progress.best = run.progress.last
    run.progress.seconds += run.clock.lap().seconds
    run.log.write(
        "epoch",
        step=step,
        epoch=epoch,
        train_loss=totals.mean_loss,
        train_top1=totals.top1,
        train_unreadable=totals.unreadable,
        val_count=counts and counts.count,
        val_top1_correct=counts and counts.top1_correct,
        val_top5_correct=counts and counts.top5_correct,
        val_loss=counts and counts.loss,
        val_unreadable=counts and counts.unreadable,
        seconds=run.clock.epoch_seconds(),
    )
    run.step.meter.window = type(totals)()
    if step % run.setup.plan.steps_per_epoch == 0:
        run.step.meter.epoch = type(totals)()
    if at_end or is_best or epoch % recipe.checkpoint.every_epochs == 0:
        _save(run, is_best, epoch)


def _save(run: Run, is_best: bool = False, epoch: int | None = None) -> None:
    """Write last.pt, and give it the names best.pt and epoch_NNNN.pt where they apply."""
    run.step.meter.read()
    if run.setup.process.is_main:
        folder, keep = run.folder, run.setup.recipe.checkpoint.keep
        names = ["best.pt"] if is_best else []
        if keep and epoch is not None:
            names.append(f"epoch_{epoch:04d}.pt")
        checkpoint.save(capture(run), folder.last, names)
        if keep:
            for old in sorted(folder.checkpoints.glob("epoch_*.pt"))[:-keep]:
                old.unlink()
        folder.write_state("running", run.progress.step)
        folder.write_summary(_summary(run))
    run.log.write("checkpoint", step=run.progress.step, path=str(run.folder.last), best=is_best)
    run.progress.seconds += run.clock.lap().seconds


def _summary(run: Run) -> dict[str, Any]:
    progress = run.progress
    images = sum(run.setup.plan.step_size(s) for s in range(progress.step % run.setup.plan.steps_per_epoch))
    epochs = progress.step // run.setup.plan.steps_per_epoch
    images += epochs * (run.setup.plan.images - run.setup.plan.dropped)
    return {
        "best": progress.best,
        "last": progress.last,
        "epochs": epochs,
        "steps": progress.step,
        "seconds": progress.seconds,
        "images_per_s": images / progress.seconds if progress.seconds else None,
        "unreadable": run.step.meter.run.unreadable,
    }


def _finish(run: Run) -> dict[str, Any]:
    """Check that all processes hold the same weights, and close the books."""
    digests = run.setup.process.gather(weights_digest(run.model))
    if len(set(digests)) > 1:
        raise RuntimeError(f"the processes' weights have drifted apart: {digests}")
    summary = _summary(run)
    run.log.write("end", step=run.progress.step, weights_sha256=digests[0], **summary)
    if run.setup.process.is_main:
        run.folder.write_summary(summary)
        run.folder.write_state("done", run.progress.step)
    return summary


def weights_digest(model: nn.Module) -> str:
    """SHA-256 of all parameters and buffers, in order."""
    digest = hashlib.sha256()
    for tensor in model.state_dict().values():
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
