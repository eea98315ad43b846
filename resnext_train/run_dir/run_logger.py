"""The run folder and its log: events go to the console, to log.jsonl and to TensorBoard.

    recipe.yaml      the recipe with all its values
    log.jsonl        one JSON object per event: start, step, epoch, checkpoint, unreadable, slow_data, skipped,
                     scale, checkpoint_failed, preempted, failed, end
    tensorboard/     curves
    trace.json.gz    of --profile
    checkpoints/     last.pt, previous.pt, best.pt, epoch_NNNN.pt
    summary.json     best and last evaluation, epochs, steps, seconds, images/s; what the run was made with and on
    state.json       {"status": "running" | "done" | "preempted" | "failed", "step": ...}

Epochs are counted from 1. A step is a finished optimizer step; in state.json of a running run, the step of last.pt.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from resnext_train.errors import InputError
from resnext_train.run_dir.console import ConsoleSink
from resnext_train.run_dir.jsonl_sink import JsonlSink
from resnext_train.run_dir.run_paths import RunDir
from resnext_train.run_dir.sink import LogEnd, Sink
from resnext_train.run_dir.tensorboard_sink import TensorBoardSink


class RunLogger:
    """Hands events to all sinks; without sinks, as on every rank but the first, it does nothing."""

    def __init__(self) -> None:
        self._sinks: tuple[Sink, ...] = ()

    def open(self, sinks: Sequence[Sink]) -> None:
        """Hand events to `sinks` from here on."""
        self._sinks = tuple(sinks)

    def add(self, sink: Sink) -> None:
        """Hand events to one more sink."""
        self._sinks = (*self._sinks, sink)

    def write(self, event: str, **fields: Any) -> None:
        for sink in self._sinks:
            sink.write({"event": event, **fields})

    def tick(self, epoch: int, step_in_epoch: int) -> None:
        for sink in self._sinks:
            sink.tick(epoch, step_in_epoch)

    def show(self, event: str, **fields: Any) -> None:
        """Show what is not logged."""
        for sink in self._sinks:
            sink.show({"event": event, **fields})

    def close(self) -> None:
        for sink in self._sinks:
            sink.close()


def open_sinks(
    folder: RunDir, tensorboard: bool, end: LogEnd, step: int, epochs: int, steps_per_epoch: int, total_steps: int
) -> list[Sink]:
    """Open the sinks of rank 0, continued after `end`, for a run that goes on from `step`.

    These are the same step, but where the recipe now has other steps per epoch.

    Raises:
        InputError: one cannot be read or written.
    """
    try:
        log = JsonlSink(folder.log, end)
        sinks: list[Sink] = [log, ConsoleSink(epochs, steps_per_epoch, total_steps, step)]
        if tensorboard:
            sinks.append(TensorBoardSink(folder.path / "tensorboard", end, log.last_step))
    except OSError as error:
        raise InputError(f"the log in {folder.path} cannot be written: {error.strerror}") from error
    return sinks
