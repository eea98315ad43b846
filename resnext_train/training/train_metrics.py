"""Metrics of training: sums on the device, read at log lines; divided only when shown."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor


@dataclass
class Totals:
    """Summed training loss, correct predictions (top-1) and images seen; `None` is shown where nothing was seen."""

    loss: float = 0.0
    correct: int = 0
    seen: int = 0
    unreadable: int = 0
    """Images that could not be read, in whose places others were seen."""

    @property
    def mean_loss(self) -> float | None:
        """Loss per image."""
        return self.loss / self.seen if self.seen else None

    @property
    def top1(self) -> float | None:
        """Top-1 accuracy in per cent, on augmented images and before each step's update."""
        return 100 * self.correct / self.seen if self.seen else None


class TrainMeter:
    """Training loss and accuracy since the last log line (`window`), over the running epoch (`epoch`) and the run.

    Sums stay on the device until `read`, the only place where the host waits for it. They are of 64 bits, so that the
    same steps give the same sums in any grouping.
    """

    def __init__(self, device: torch.device, sum_over_processes: Callable[[Tensor], Tensor]) -> None:
        self.window, self.epoch, self.run = Totals(), Totals(), Totals()
        self._pending = torch.zeros(4, dtype=torch.float64, device=device)
        self._step = torch.zeros_like(self._pending)
        self._sum = sum_over_processes

    def add(self, loss_sum: Tensor, logits: Tensor, labels: Tensor, unreadable: int = 0) -> None:
        """Count one group of a step without waiting for the device."""
        correct = (logits.argmax(1) == labels).sum()
        self._step[0] += loss_sum
        self._step[1] += correct
        self._step[2] += len(labels)
        self._step[3] += unreadable

    def end_step(self, counted: Tensor) -> None:
        """End a step; where `counted` (bool) is false its groups have not been seen, whatever their loss was."""
        self._pending += torch.where(counted, self._step, 0.0)
        self._step.zero_()

    def read(self) -> None:
        """Bring what is pending, over all processes, into `window` and `epoch`."""
        loss, correct, seen, unreadable = self._sum(self._pending).tolist()
        self._pending.zero_()
        for totals in (self.window, self.epoch, self.run):
            totals.loss += loss
            totals.correct += int(correct)
            totals.seen += int(seen)
            totals.unreadable += int(unreadable)

    def state_dict(self) -> dict[str, Any]:
        """All totals as plain types, after `read`."""
        return {"window": asdict(self.window), "epoch": asdict(self.epoch), "run": asdict(self.run)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict`."""
        self.window, self.epoch = Totals(**state["window"]), Totals(**state["epoch"])
        self.run = Totals(**state["run"])


class Skipped(NamedTuple):
    """A step that changed nothing because it was not finite: its number from 0, and the groups whose loss was not."""

    step: int
    micro_batches: list[int]
    """Numbers of BN groups; none where all losses were finite, but the gradient's norm or the statistics were not."""
    in_a_row: int
    """This one and the skipped steps directly before it."""


class FiniteWatch:
    """Which steps were finite; kept on the device until `read`, like TrainMeter's sums."""

    def __init__(self) -> None:
        self.total, self.in_a_row = 0, 0
        self._steps: list[int] = []
        self._rows: list[Tensor] = []

    def add(self, step: int, finite: Tensor, losses: Tensor) -> None:
        """Note step `step`: whether it was `finite` (bool), and the `losses` of its groups (bool, one for each)."""
        self._steps.append(step)
        self._rows.append(torch.cat((finite.unsqueeze(0), losses)))

    def read(self) -> list[Skipped]:
        """The steps skipped since the last call; counts them in `total`, and in `in_a_row` those up to now."""
        rows = torch.stack(self._rows).tolist() if self._rows else []
        skipped = []
        for step, (finite, *losses) in zip(self._steps, rows, strict=True):
            self.in_a_row = 0 if finite else self.in_a_row + 1
            if not finite:
                self.total += 1
                skipped.append(
                    Skipped(step, [micro_batch for micro_batch, fine in enumerate(losses) if not fine], self.in_a_row)
                )
        self._steps, self._rows = [], []
        return skipped

    def state_dict(self) -> dict[str, int]:
        """The counts, after `read`."""
        return {"total": self.total, "in_a_row": self.in_a_row}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continue from `state_dict`."""
        self.total, self.in_a_row = state["total"], state["in_a_row"]
