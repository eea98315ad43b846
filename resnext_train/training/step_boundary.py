"""Between two steps, and two batches of an evaluation: agree with the other ranks, save, and stop on a signal."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from typing import Any, NoReturn

from resnext_train.data.image_batch import ImageBatch
from resnext_train.errors import FaultError, Preempted
from resnext_train.training.health import check_health
from resnext_train.training.run_state import run_state_dict
from resnext_train.training.training_run import TOO_MANY_FAILED, StepFlags, TrainingRun


class StopRequested(Exception):  # noqa: N818 (no error)
    """All ranks have agreed to stop, because one of them received `signal`."""

    def __init__(self, signal: int) -> None:
        self.signal = signal


def until_stopped(run: TrainingRun, batches: Iterator[ImageBatch]) -> Iterator[ImageBatch]:
    """Yield `batches` until the ranks agree to stop. A rank with fewer of them agrees as often as the others."""
    if run.setup.context.is_main:
        _note_saved(run, wait=True)  # a best one that could not be saved no longer counts as the best
    for _ in range(run.val_loader.sampler.rounds):  # type: ignore[attr-defined]
        sync_flags(run, may_save=False)
        if batch := next(batches, None):
            yield batch


def sync_flags(run: TrainingRun, may_save: bool) -> None:
    """Agree with the other ranks on the flags of all, and act on them: stop, save, or withdraw a best that was lost.

    Raises:
        StopRequested: a rank received a signal.
        FaultError: checkpoints cannot be written.
    """
    flags = StepFlags(run.signals.received, 0, 0)
    if run.setup.context.is_main:
        _note_saved(run, wait=False)
        minutes, limit = (time.monotonic() - run.saved_at) / 60, run.setup.recipe.checkpoint.every_minutes
        due = may_save and limit is not None and minutes > limit
        if due:
            run.saved_at = time.monotonic()  # on GPUs the flag takes effect a step later, and must be set once
        flags, run.trouble = StepFlags(run.signals.received, due, run.trouble), 0
    agreed = StepFlags(*run.flag_sync.all_reduce_max([int(flag) for flag in flags]))
    if agreed.trouble == TOO_MANY_FAILED:
        _stop_unsaved(run)
    if run.progress.best and run.progress.best["epoch"] == agreed.trouble:
        run.progress.best = run.best_before
    if agreed.stop_signal:
        raise StopRequested(agreed.stop_signal)
    if agreed.save and may_save:
        save(run)


def save(run: TrainingRun, is_best: bool = False, epoch: int | None = None) -> None:
    """Begin to write last.pt in the background, also under the names best.pt and epoch_NNNN.pt where they apply."""
    check_health(run)
    run.saved_at = time.monotonic()
    if run.setup.context.is_main:
        step, summary = run.progress.step, run_summary(run)

        def then() -> None:
            run.folder.write_state("running", step)
            run.folder.write_summary(summary)

        _note_saved(run, wait=True)
        run.checkpoint_writer.save(run_state_dict(run), is_best, epoch, then)
    run.progress.seconds += run.clock.lap().seconds


def _note_saved(run: TrainingRun, wait: bool) -> None:
    """On rank 0: log the outcome of the last save, if it is known; with `wait`, block until it is."""
    saved = run.checkpoint_writer.outcome(wait)
    if saved is None:
        return
    if not saved.problem:
        run.log.write(
            "checkpoint", step=saved.step, path=str(run.folder.last), best=saved.best_epoch > 0, seconds=saved.seconds
        )
        return
    limit = run.setup.recipe.checkpoint.max_failures
    run.trouble = TOO_MANY_FAILED if run.checkpoint_writer.failures > limit else max(run.trouble, saved.best_epoch)
    text = f"the checkpoint of step {saved.step} could not be written: {saved.problem}; the one before is kept"
    if run.trouble != TOO_MANY_FAILED:
        failures = run.checkpoint_writer.failures
        text += f", training goes on ({failures} of at most {limit} such failures in a row)"
    run.log.write("checkpoint_failed", step=saved.step, text=text)


def _stop_unsaved(run: TrainingRun) -> NoReturn:
    raise FaultError(
        f"stopped at step {run.progress.step}, because checkpoints cannot be written to {run.folder.checkpoints}; make "
        "room on its disk, and start the same command again: it continues from the last checkpoint"
    )


def wait_saved(run: TrainingRun) -> None:
    """Wait until the last checkpoint is safely on the disk.

    Raises:
        FaultError: it cannot be written.
    """
    if run.setup.context.is_main:
        _note_saved(run, wait=True)
    if any(run.setup.context.gather(run.checkpoint_writer.failures)):
        _stop_unsaved(run)


def save_and_exit(run: TrainingRun, number: int) -> NoReturn:
    """Save the run and end it in order.

    Raises:
        Preempted: always.
        FaultError: it cannot be saved.
    """
    name, step = signal.Signals(number).name, run.progress.step
    save(run)
    wait_saved(run)
    run.log.write("preempted", step=step, signal=name)
    if run.setup.context.is_main:
        run.folder.write_state("preempted", step, signal=name)
    run.setup.context.run_on_all_ranks(lambda: None)  # torchrun ends all processes when the first one leaves
    raise Preempted(f"{name}: saved at step {step} and stopped; the same command continues from there")


def run_summary(run: TrainingRun) -> dict[str, Any]:
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
        "skipped_steps": run.step.watch.total,
    }
