"""What a sink of the log is."""

from __future__ import annotations

from typing import Any, Protocol

Event = dict[str, Any]


class Sink(Protocol):
    """A destination of logged events. A new one is a class with these methods and a line in `open_sinks`."""

    def write(self, event: Event) -> None:
        """Write one event."""

    def tick(self, epoch: int, step_in_epoch: int) -> None:
        """Note the end of a step. Called for each, so it must be cheap."""

    def close(self) -> None:
        """Finish: no more events follow."""
