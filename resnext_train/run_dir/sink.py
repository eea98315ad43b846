"""What a sink of the log is."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Event = dict[str, Any]
Pixels = NDArray[np.uint8]
"""A picture (height, width, 3)."""


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


class Sink:
    """A destination of logged events. A new one is a subclass that overrides what it has use for."""

    takes_arrays = False
    """Whether it has use for pictures and histograms; where no sink has, none are made."""

    def write(self, event: Event) -> None:
        """Write one event."""

    def tick(self, epoch: int, step_in_epoch: int) -> None:
        """Note the end of a step. Called for each, so it must be cheap."""

    def show(self, event: Event) -> None:
        """Show the numbers of a step that is not logged, if anyone looks on."""

    def picture(self, name: str, pixels: Pixels, step: int) -> None:
        """Keep a picture of finished step `step`."""

    def histogram(self, name: str, values: NDArray[np.floating[Any]], step: int) -> None:
        """Keep the distribution of `values` (n,), all finite, of finished step `step`."""

    def close(self) -> None:
        """Finish: no more events follow."""
