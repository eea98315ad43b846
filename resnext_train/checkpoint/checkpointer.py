"""When a run saves, what it keeps, and how saves fare: last.pt, previous.pt, best.pt and epoch_NNNN.pt."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from resnext_train.checkpoint import checkpoint_file
from resnext_train.checkpoint.stored_weights import best_of
from resnext_train.config import CheckpointSection
from resnext_train.errors import FaultError
from resnext_train.run_dir.run_logger import RunLogger
from resnext_train.run_dir.run_paths import RunDir


@dataclass(frozen=True)
class SaveOutcome:
    """How a save ended."""

    step: int
    epoch_is_open: bool
    """Whether it was begun before the evaluation of the epoch that `step` ended."""
    best_epoch: int
    """The epoch whose evaluation is the best, if this is best.pt, else 0."""
    seconds: float
    problem: str | None
    """Why it could not be written, or None."""


class Checkpointer:
    """Decides when to save, writes in a thread, from a copy, and remembers which evaluation is the best.

    Training waits for the copying, and for the save before where that still goes on. A checkpoint of ResNeXt-50 has
    200 MB: copied in 0.05 s, but written, hashed and synced only after 0.6 s, and on a slow disk after many seconds.
    8 GPUs of 2022 finish an epoch in half a minute.

    A checkpoint is also written before an evaluation, while the epoch is open: the evaluation may fail, and must not
    take the epoch's training with it. It is no checkpoint to keep. The next one replaces it, and previous.pt stays.

    Every rank has one, so that all know the best; only the one that `writes` saves and reports.
    """

    def __init__(self, folder: RunDir, section: CheckpointSection, log: RunLogger, writes: bool) -> None:
        self._folder, self._section, self._log, self._writes = folder, section, log, writes
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpointer")
        self._writing: Future[SaveOutcome] | None = None
        self._saved_at = time.monotonic()
        self._best_before: dict[str, Any] | None = None
        self._failed: SaveOutcome | None = None
        """The last save that could not be written."""
        self.last_failed = False
        """Whether the last save could not be written."""
        self._begun: tuple[int, bool] | None = None
        """Step and open epoch of the last save."""
        self._last_is_open = False
        """Whether last.pt was written before the evaluation of its epoch."""
        self.best: dict[str, Any] | None = None
        """The evaluation with the most correct top-1 predictions; of several, the first. See `best_of`."""
        self.failures = 0
        """Checkpoints in a row that could not be written."""
        self.best_lost = 0
        """The epoch of the last best.pt that could not be written, or 0."""

    @property
    def is_failing(self) -> bool:
        """Whether more checkpoints in a row could not be written than the recipe tolerates."""
        return self.failures > self._section.max_failures

    def is_due_after_step(self, step: int) -> bool:
        return self._section.every_steps is not None and step % self._section.every_steps == 0

    def is_due_after_epoch(self, epoch: int) -> bool:
        return epoch % self._section.every_epochs == 0

    def is_due_by_time(self) -> bool:
        """Return whether the last save began too long ago; once, because on GPUs the ranks agree a step later."""
        limit = self._section.every_seconds
        if not self._writes or limit is None or time.monotonic() - self._saved_at <= limit:
            return False
        self._saved_at = time.monotonic()
        return True

    def observe(self, evaluation: dict[str, Any]) -> bool:
        """Note an evaluation; return whether it has more correct top-1 predictions than all before it."""
        evaluation = best_of(evaluation)
        if self.best is not None and evaluation["top1_correct"] <= self.best["top1_correct"]:
            return False
        self._best_before, self.best = self.best, evaluation
        return True

    def withdraw_best(self, epoch: int) -> None:
        """If the evaluation of `epoch` is the best, return to the one before: its checkpoint could not be written."""
        if self.best is not None and self.best["epoch"] == epoch:
            self.best = self._best_before

    def save(self, state: dict[str, Any], summary: dict[str, Any], is_best: bool, epoch: int | None) -> None:
        """Copy `state` and begin to write it: last.pt, where `is_best` best.pt, and at an epoch's end epoch_NNNN.pt.

        Then state.json follows, and summary.json, which speaks of whole epochs, where the epoch is not open.
        """
        self._begun = state["progress"]["step"], state["progress"]["epoch_is_open"]
        if not self._writes:
            return
        self.log_outcome(wait=True)
        self._saved_at = time.monotonic()
        names = ["best.pt"] if is_best else []
        if self._section.keep and epoch is not None:
            names.append(f"epoch_{epoch:04d}.pt")
        best_epoch = self.best["epoch"] if is_best and self.best else 0
        copy = checkpoint_file.snapshot(state)
        self._writing = self._thread.submit(self._write, copy, summary, names, best_epoch)

    def continue_from_last(self, step: int, epoch_is_open: bool) -> None:
        """Note that last.pt holds this state of the run."""
        self._begun, self._last_is_open = (step, epoch_is_open), epoch_is_open

    def has_begun(self, step: int, epoch_is_open: bool) -> bool:
        """Return whether the last save is that of this state of a run; known on every rank."""
        return self._begun == (step, epoch_is_open)

    def _write(self, state: dict[str, Any], summary: dict[str, Any], names: list[str], best_epoch: int) -> SaveOutcome:
        began, step, is_open = time.perf_counter(), state["progress"]["step"], state["progress"]["epoch_is_open"]
        folder, problem = self._folder, None
        try:
            folder.sync_log()  # first, so that the log on the disk reaches as far as the checkpoint
            checkpoint_file.save(state, folder.last, names, None if self._last_is_open else folder.previous.name)
        except OSError as error:
            gone = next((path for path in (folder.path, folder.checkpoints) if not path.is_dir()), None)
            problem = f"{gone} is gone" if gone else error.strerror or str(error)
        else:
            folder.remove_old_epochs(self._section.keep)
            folder.write_state("running", step)
            if not is_open:
                folder.write_summary(summary)
        return SaveOutcome(step, is_open, best_epoch, time.perf_counter() - began, problem)

    def log_outcome(self, wait: bool = False) -> None:
        """Log how the last save ended, as soon as that is known; `wait` blocks until it is."""
        if self._writing is None or not (wait or self._writing.done()):
            return
        saved, self._writing = self._writing.result(), None
        self.last_failed = saved.problem is not None
        if saved.problem is None:
            self._count_success(saved)
            path, best = str(self._folder.last), saved.best_epoch > 0
            self._log.write(
                "checkpoint",
                step=saved.step,
                path=path,
                best=best,
                epoch_is_open=saved.epoch_is_open,
                seconds=saved.seconds,
            )
            return
        self._count_failure(saved)
        self.best_lost = saved.best_epoch or self.best_lost
        text = f"the checkpoint of step {saved.step} could not be written: {saved.problem}; the one before is kept"
        if not self.is_failing:
            limit = self._section.max_failures
            text += f", training goes on ({self.failures} of at most {limit} such failures in a row)"
        self._log.write("checkpoint_failed", step=saved.step, text=text)

    def settle(self, gather: Callable[[tuple[bool, int]], list[tuple[bool, int]]]) -> bool:
        """Wait for the last save and return whether it failed; withdraw the best if its best.pt was not written.

        `gather` returns the value of every rank: all must call this.
        """
        self.log_outcome(wait=True)
        ended = gather((self.last_failed, self.best_lost))
        self.withdraw_best(max(best_lost for _, best_lost in ended))
        return any(failed for failed, _ in ended)

    def _count_success(self, saved: SaveOutcome) -> None:
        self._last_is_open = saved.epoch_is_open
        # One before an evaluation does not make up for one after it, which also holds what is the best.
        if self._failed is None or self._failed.epoch_is_open or not saved.epoch_is_open:
            self.failures = 0

    def _count_failure(self, saved: SaveOutcome) -> None:
        if not self.failures or self._failed is None or self._failed.step != saved.step:
            self.failures += 1  # once for the two of an epoch's end
        self._failed = saved

    def fault(self, step: int) -> FaultError:
        """Return the error of a run that stops after `step` steps because it cannot be saved."""
        folder, why = self._folder, self._failed.problem if self._failed else "another process says so"
        if not folder.path.is_dir():
            return FaultError(
                f"stopped at step {step}, because run folder {folder.path} is gone, and with it what was saved; "
                "the same command starts a new run"
            )
        if not folder.checkpoints.is_dir():
            return FaultError(
                f"stopped at step {step}, because {folder.checkpoints} is gone, and with it what was saved; put it "
                f"back, choose another --out, or remove {folder.path} and start anew"
            )
        return FaultError(
            f"stopped at step {step}, because checkpoints cannot be written to {folder.checkpoints} ({why}); make "
            "room on its disk, or make it writable, and start the same command again: it continues from the last "
            "checkpoint"
        )

    def close(self) -> None:
        """Wait for the pending save."""
        self._thread.shutdown()

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.best = state["best"]
