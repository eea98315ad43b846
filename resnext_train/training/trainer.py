"""A training run, from its first step to its last. Read this file first."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from torch.utils.data import DataLoader

from resnext_train.checkpoint.resume import ResumePoint, resume_point
from resnext_train.data.batch_loader import on_device, readable_batches, report_unreadable
from resnext_train.data.build_loaders import build_color_transform, build_train_loader
from resnext_train.data.image_batch import ImageBatch, UnreadableImage
from resnext_train.data.loader_workers import worker_deaths_explained
from resnext_train.distributed.heartbeat import dead_ranks_named
from resnext_train.distributed.stop_signals import StopSignals
from resnext_train.errors import Preempted
from resnext_train.evaluation.evaluate import evaluate
from resnext_train.run_dir.run_paths import RunDir
from resnext_train.training.build_run import build_run
from resnext_train.training.health import check_health, weights_digest
from resnext_train.training.setup import Setup
from resnext_train.training.step_boundary import (
    StopRequested,
    run_summary,
    save,
    save_and_exit,
    sync_flags,
    until_stopped,
    wait_saved,
)
from resnext_train.training.training_run import TrainingRun


@worker_deaths_explained()
def train(setup: Setup, folder: RunDir, resume: str) -> dict[str, Any]:
    """Train to the end of the recipe and return the summary. Every rank calls this.

    `resume` is auto, never or the path of a checkpoint, see checkpoint/resume.py.

    Raises:
        Preempted: a signal stopped the run; it is saved.
        InputError: the run folder cannot be written, the checkpoint does not fit, an image cannot be read, or a loader
            process died.
        FaultError: a rank is gone, the ranks' weights differ, too many steps in a row were not finite, or checkpoints
            cannot be written.
    """
    context = setup.context.in_training(60 * setup.recipe.train.patience)
    setup = replace(setup, context=context)
    lock = context.run_on_all_ranks(lambda: folder.lock() if context.is_main else None)
    try:
        with StopSignals(announce=context.is_main) as signals:
            with dead_ranks_named(context.heartbeat):
                # Chosen under the lock: no other run can be writing checkpoints in the folder.
                point = context.run_on_all_ranks(
                    lambda: resume_point(folder, setup.recipe, resume) if context.is_main else ResumePoint()
                )
                run = build_run(setup, folder, context.gather(point)[0], signals)
            with _record_end(run), dead_ranks_named(context.heartbeat):
                return _take_steps(run)
    finally:
        if lock:
            lock.close()


@contextmanager
def _record_end(run: TrainingRun) -> Iterator[None]:
    """Record in state.json and the log how the run ends, and finish the checkpoint that is being written."""
    try:
        try:
            yield
        except StopRequested as stop:
            save_and_exit(run, stop.signal)
    except Preempted:
        raise
    except BaseException as error:
        run.checkpoint_writer.close()  # first: a checkpoint that is still being written ends by writing state.json, too
        run.log.write("failed", step=run.progress.step, text=str(error) or type(error).__name__)
        if run.setup.context.is_main:
            run.folder.write_state("failed", run.progress.step)
        raise
    finally:
        run.checkpoint_writer.close()
        run.log.close()


def _take_steps(run: TrainingRun) -> dict[str, Any]:
    """Load, step, log, evaluate, save and stop, from where `run` is to its end; return the summary."""
    setup, section = run.setup, run.setup.recipe.checkpoint
    if run.progress.epoch_is_open:  # the run was stopped during this epoch's evaluation
        _end_epoch(run)
    loader = build_train_loader(
        setup.recipe, setup.splits.train, setup.plan, setup.context, run.progress.step, setup.total_steps
    )
    micro_batches = run.clock.timed(_batches_on_device(run, loader))
    while run.progress.step < setup.total_steps:
        _take_step(run, micro_batches)
        step = run.progress.step
        at_end = step == setup.total_steps
        if at_end or step % setup.recipe.log.every == 0:
            _log_step(run)
        if at_end or step % setup.plan.steps_per_epoch == 0:
            _end_epoch(run)
        elif section.every_steps and step % section.every_steps == 0:
            save(run)
        if not at_end:
            sync_flags(run, may_save=True)
    return _finish(run)


def _batches_on_device(run: TrainingRun, loader: DataLoader[ImageBatch | UnreadableImage]) -> Iterator[ImageBatch]:
    """Yield the batches of `loader` on this rank's device, and log images that cannot be read."""
    return on_device(report_unreadable(readable_batches(loader), run.log_unreadable), run.setup.context.device)


def _take_step(run: TrainingRun, micro_batches: Iterator[ImageBatch]) -> None:
    step = run.progress.step
    size = run.setup.plan.step_size(step)
    run.step(micro_batches, step, size, run.schedule.lr(step))
    run.clock.took(size)
    run.progress.step += 1
    run.log.tick(run.setup.epoch_of(step), step % run.setup.plan.steps_per_epoch + 1)


def _log_step(run: TrainingRun) -> None:
    """Log the mean over the steps since the last step line, or since the epoch's start."""
    check_health(run)
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
    if slow := run.data_wait.add(lap):
        run.log.write("slow_data", step=step + 1, **slow)
    run.step.meter.window = type(window)()


def _end_epoch(run: TrainingRun) -> None:
    """Evaluate if the epoch asks for it, log the epoch, note the best, and save."""
    recipe = run.setup.recipe
    step = run.progress.step
    at_end = step == run.setup.total_steps
    epoch = run.setup.epoch_of(step - 1)
    check_health(run)
    totals = run.step.meter.epoch
    counts = None
    if at_end or epoch % recipe.eval.every_epochs == 0:
        run.progress.epoch_is_open = True
        batches = until_stopped(run, _batches_on_device(run, run.val_loader))
        normalise, setup = build_color_transform(recipe), run.setup
        counts = evaluate(run.model, batches, normalise, setup.precision, setup.context, setup.evaluation.outputs)
        run.progress.epoch_is_open = False
        run.schedule.observe(100 - counts.top1)
        run.progress.last = {"epoch": epoch, **counts.to_dict()}
    is_best = counts is not None and counts.top1_correct > (run.progress.best or {"top1_correct": -1})["top1_correct"]
    if is_best:
        run.best_before, run.progress.best = run.progress.best, run.progress.last
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
        seconds=run.progress.seconds - run.progress.epoch_began,
    )
    run.progress.epoch_began = run.progress.seconds
    run.step.meter.window = type(totals)()
    if step % run.setup.plan.steps_per_epoch == 0:  # else max_steps cut the epoch short, and more epochs may follow
        run.step.meter.epoch = type(totals)()
    if at_end or is_best or epoch % recipe.checkpoint.every_epochs == 0:
        save(run, is_best, epoch)


def _finish(run: TrainingRun) -> dict[str, Any]:
    """Wait for the last checkpoint, then write the end event, summary.json and state.json."""
    wait_saved(run)
    summary = run_summary(run)
    run.log.write("end", step=run.progress.step, weights_sha256=weights_digest(run.model), **summary)
    if run.setup.context.is_main:
        run.folder.write_summary(summary)
        run.folder.write_state("done", run.progress.step)
    return summary
