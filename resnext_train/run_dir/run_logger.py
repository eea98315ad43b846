"""The run folder and its log: events go to the console, to log.jsonl and to the trackers that the recipe names.

    recipe.yaml      the recipe with all its values
    log.jsonl        one JSON object per event: start, step, epoch, checkpoint, unreadable, slow_data, skipped,
                     scale, checkpoint_failed, tracker_failed, preempted, failed, end
    events.out.*     TensorBoard's curves; in tensorboard/ where an older version began the run
    metrics.csv      of log.to=csv
    wandb/           of log.to=wandb
    trackers.json    by which ids W&B and MLflow know the run
    trace.json.gz    of --profile
    checkpoints/     last.pt, previous.pt, best.pt, epoch_NNNN.pt
    summary.json     best and last evaluation, epochs, steps, seconds, images/s; what the run was made with and on
    state.json       {"status": "running" | "done" | "preempted" | "failed", "step": ...}

Epochs are counted from 1. A step is a finished optimizer step; in state.json of a running run, the step of last.pt.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resnext_train.errors import InputError
from resnext_train.run_dir.console import ConsoleSink, print_warning
from resnext_train.run_dir.jsonl_sink import JsonlSink
from resnext_train.run_dir.run_paths import RunDir
from resnext_train.run_dir.sink import LogEnd, Pixels, Sink
from resnext_train.run_dir.trackers.tracked_run import TrackedRun, TrackerIds
from resnext_train.run_dir.trackers.tracker_guard import TrackerGuard
from resnext_train.run_dir.trackers.tracker_list import open_tracker


class RunLogger:
    """Hands events to all sinks; without sinks, as on every rank but the first, it does nothing."""

    def __init__(self) -> None:
        self._sinks: tuple[Sink, ...] = ()
        self._step = 0

    def open(self, sinks: Sequence[Sink]) -> None:
        """Hand events to `sinks` from here on."""
        self._sinks = tuple(sinks)

    def add(self, sink: Sink) -> None:
        """Hand events to one more sink."""
        self._sinks = (*self._sinks, sink)

    @property
    def takes_arrays(self) -> bool:
        """Whether any sink has use for pictures and histograms."""
        return any(sink.takes_arrays for sink in self._sinks)

    def write(self, event: str, **fields: Any) -> None:
        self._hand_out(event, fields)
        self._step = fields["step"]
        self._report_trackers()

    def _hand_out(self, event: str, fields: dict[str, Any]) -> None:
        for sink in self._sinks:
            sink.write({"event": event, **fields})

    def _report_trackers(self) -> None:
        """Say and log what has become of trackers. Here, and not where it happens: sinks are used by one thread."""
        for sink in self._sinks:
            if isinstance(sink, TrackerGuard):
                for fault in sink.take_faults():
                    print_warning(f"warning: {fault}")
                    self._hand_out("tracker_failed", {"step": self._step, "tracker": sink.name, "text": fault})

    def tick(self, epoch: int, step_in_epoch: int) -> None:
        for sink in self._sinks:
            sink.tick(epoch, step_in_epoch)

    def show(self, event: str, **fields: Any) -> None:
        """Show what is not logged."""
        for sink in self._sinks:
            sink.show({"event": event, **fields})

    def picture(self, name: str, pixels: Pixels, step: int) -> None:
        for sink in self._sinks:
            sink.picture(name, pixels, step)

    def histogram(self, name: str, values: NDArray[np.floating[Any]], step: int) -> None:
        for sink in self._sinks:
            sink.histogram(name, values, step)

    def close(self) -> None:
        """Close the trackers, then what says how that went."""
        sinks = sorted(self._sinks, key=lambda sink: not isinstance(sink, TrackerGuard))
        for sink in sinks:
            sink.close()
            self._report_trackers()
            self._sinks = tuple(other for other in self._sinks if other is not sink)


def open_sinks(
    folder: RunDir, end: LogEnd, console: ConsoleSink, trackers: Sequence[str], recipe: dict[str, Any], text: str
) -> list[Sink]:
    """Open the sinks of rank 0, continued after `end`: the log, the `console`, and the `trackers` by their names.

    `recipe` is the resolved recipe, and `text` the same as YAML. A tracker that cannot be opened is left out.

    Raises:
        InputError: the log cannot be read or written.
    """
    try:
        log = JsonlSink(folder.log, end)
    except OSError as error:
        raise InputError(f"the log in {folder.path} cannot be written: {error.strerror}") from error
    ids = TrackerIds(folder.path / "trackers.json")
    run = TrackedRun(folder.path, recipe, text, ids, end, log.last_step)
    return [log, console, *(open_tracker(name, run) for name in trackers)]
