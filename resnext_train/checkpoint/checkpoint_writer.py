"""Write a run's checkpoints in the background: last.pt, previous.pt, best.pt and epoch_NNNN.pt."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from time import perf_counter
from typing import Any

from resnext_train.checkpoint import checkpoint_file
from resnext_train.run_dir.run_paths import RunDir


@dataclass(frozen=True)
class SaveOutcome:
    """How a save ended."""

    step: int
    best_epoch: int
    """The epoch whose evaluation is the best, if this is best.pt, else 0."""
    seconds: float
    problem: str | None
    """Why it could not be written, or None."""


class CheckpointWriter:
    """Writes checkpoints one after the other in a thread, from copies, so that training waits only for the copying.

    A checkpoint of ResNeXt-50 has 200 MB: copied in 0.05 s, but written, hashed and synced only after 0.6 s, and on a
    slow disk after many seconds. 8 GPUs of 2022 finish an epoch in half a minute.
    """

    def __init__(self, folder: RunDir, keep: int) -> None:
        self._folder, self._keep = folder, keep
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint_writer")
        self._writing: Future[SaveOutcome] | None = None
        self.failures = 0
        """Checkpoints in a row that could not be written."""

    def save(self, state: dict[str, Any], best: bool, epoch: int | None, then: Callable[[], None]) -> None:
        """Copy `state` and begin to write it; call `then` once it is safely on the disk.

        Call `outcome(wait=True)` for the save before first.
        """
        assert self._writing is None
        names = ["best.pt"] if best else []
        if self._keep and epoch is not None:
            names.append(f"epoch_{epoch:04d}.pt")
        self._writing = self._thread.submit(self._write, checkpoint_file.snapshot(state), best, names, then)

    def _write(self, state: dict[str, Any], best: bool, names: list[str], then: Callable[[], None]) -> SaveOutcome:
        began, step = perf_counter(), state["progress"]["step"]
        best_epoch = state["progress"]["best"]["epoch"] if best else 0
        folder = self._folder
        try:
            folder.sync_log()  # first, so that the log on the disk reaches as far as the checkpoint
            checkpoint_file.save(state, folder.last, names, folder.previous.name)
            if self._keep:
                for old in sorted(folder.checkpoints.glob("epoch_*.pt"))[: -self._keep]:
                    old.unlink()
        except OSError as error:
            return SaveOutcome(step, best_epoch, perf_counter() - began, error.strerror or str(error))
        then()
        return SaveOutcome(step, best_epoch, perf_counter() - began, None)

    def outcome(self, wait: bool) -> SaveOutcome | None:
        """Return the outcome of the pending save, once; None while it is being written. `wait` blocks until then."""
        if self._writing is None or not (wait or self._writing.done()):
            return None
        saved = self._writing.result()
        self._writing = None
        self.failures = self.failures + 1 if saved.problem else 0
        return saved

    def close(self) -> None:
        """Wait for the pending save."""
        self._thread.shutdown()
