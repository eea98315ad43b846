"""What a sink of the log is."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

Event = dict[str, Any]


class LogEnd(NamedTuple):
    """Where the log of a run ends when the run goes on from a checkpoint."""

    step: int
    """Finished steps; 0: a new run."""
    epoch_is_open: bool = False
    """Whether the evaluation of the epoch that `step` ended is still to come, and so its line."""

    def holds(self, event: Event) -> bool:
        """Return whether the checkpoint's run had logged an event; what its evaluation logs again does not count."""
        step: int = event["step"]
        again = self.epoch_is_open and event["event"] in ("epoch", "unreadable")
        return step < self.step or (step == self.step and not again)


class Sink(Protocol):
    """A destination of logged events. A new one is a class with these methods and a line in `open_sinks`."""

    def write(self, event: Event) -> None:
        """Write one event."""

    def tick(self, epoch: int, step_in_epoch: int) -> None:
        """Note the end of a step. Called for each, so it must be cheap."""

    def show(self, event: Event) -> None:
        """Show the numbers of a step that is not logged, if anyone looks on."""

    def close(self) -> None:
        """Finish: no more events follow."""
