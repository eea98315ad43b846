"""Somewhere that logged events go."""

from __future__ import annotations

from typing import Any, Protocol

Event = dict[str, Any]


class Sink(Protocol):
    """Somewhere that events go."""

    def write(self, event: Event) -> None:
        """Take one event."""

    def tick(self, epoch: int, step_in_epoch: int) -> None:
        """A step is over; called for each, so it must be cheap."""

    def close(self) -> None:
        """No more events come."""
