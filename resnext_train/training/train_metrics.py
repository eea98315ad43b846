"""Metrics of training: sums on the device, read at log lines; divided only when shown."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from resnext_train.compute.metrics import EvalCounts


@dataclass
class Totals:
    """Summed training loss, correct top-1 predictions and images seen."""

    loss: float = 0.0
    correct: int = 0
    seen: int = 0
    unreadable: int = 0
    """Images that could not be read and were replaced by others."""

    @property
    def mean_loss(self) -> float | None:
        """Loss per image, or None where nothing was seen."""
        return self.loss / self.seen if self.seen else None

    @property
    def top1(self) -> float | None:
        """Top-1 accuracy in per cent on augmented images, before each step's update; None where nothing was seen."""
        return 100 * self.correct / self.seen if self.seen else None


class TrainMeter:
    """Training loss and accuracy since the last log line (`window`), over the running epoch (`epoch`) and the run.

    Sums stay on the device until `read`, the only place where the host waits for it. They have 64 bits, so that the
    same steps give the same sums on any number of ranks.
    """

    def __init__(self, device: torch.device, sum_over_ranks: Callable[[Tensor], Tensor]) -> None:
        self.window, self.epoch, self.run = Totals(), Totals(), Totals()
        self._pending = torch.zeros(4, dtype=torch.float64, device=device)
        self._step = torch.zeros_like(self._pending)
        self._sum = sum_over_ranks

    def add(self, loss_sum: Tensor, logits: Tensor, labels: Tensor, unreadable: int = 0) -> None:
        """Count one micro-batch without waiting for the device."""
        correct = (logits.argmax(1) == labels).sum()
        self._step[0] += loss_sum
        self._step[1] += correct
        self._step[2] += len(labels)
        self._step[3] += unreadable

    def end_step(self, counted: Tensor) -> None:
        """End a step. Where `counted` (bool) is false its micro-batches do not count, whatever their loss was."""
        self._pending += torch.where(counted, self._step, 0.0)
        self._step.zero_()

    def read(self) -> None:
        """Add the pending sums of all ranks to `window`, `epoch` and `run`."""
        loss, correct, seen, unreadable = self._sum(self._pending).tolist()
        self._pending.zero_()
        for totals in (self.window, self.epoch, self.run):
            totals.loss += loss
            totals.correct += int(correct)
            totals.seen += int(seen)
            totals.unreadable += int(unreadable)

    def take_window(self) -> Totals:
        """Return the sums since the last log line, and begin the next window."""
        window, self.window = self.window, Totals()
        return window

    def peek(self) -> Totals:
        """Return the window's sums so far, of which this rank's alone since the last `read`. Changes nothing."""
        loss, correct, seen, unreadable = self._pending.tolist()
        w = self.window
        return Totals(w.loss + loss, w.correct + int(correct), w.seen + int(seen), w.unreadable + int(unreadable))

    def end_epoch(self) -> None:
        """Begin the next epoch, and its first window."""
        self.window, self.epoch = Totals(), Totals()

    @property
    def unreadable(self) -> int:
        """Images of the run that could not be read."""
        return self.run.unreadable

    def state_dict(self) -> dict[str, Any]:
        return {"window": asdict(self.window), "epoch": asdict(self.epoch), "run": asdict(self.run)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.window, self.epoch = Totals(**state["window"]), Totals(**state["epoch"])
        self.run = Totals(**state["run"])


def epoch_results(totals: Totals, counts: EvalCounts | None) -> dict[str, Any]:
    """Return what an epoch's event says of training and of its evaluation, if there was one."""
    return {
        "train_loss": totals.mean_loss,
        "train_top1": totals.top1,
        "train_unreadable": totals.unreadable,
        "val_count": counts and counts.count,
        "val_top1_correct": counts and counts.top1_correct,
        "val_top5_correct": counts and counts.top5_correct,
        "val_loss": counts and counts.loss,
        "val_unreadable": counts and counts.unreadable,
    }


class Skipped(NamedTuple):
    """A step that changed nothing because it was not finite, counted from 0."""

    step: int
    micro_batches: list[int]
    """Those whose loss was not finite; none where only the gradient's norm or the statistics were not."""
    in_a_row: int
    """Skipped steps in a row, this one included."""


class FiniteWatch:
    """Which steps were finite, kept on the device until `read` like TrainMeter's sums."""

    def __init__(self) -> None:
        self.total, self.in_a_row = 0, 0
        self.overflows: list[int] = []
        """Steps of the last `read` that were skipped because the loss scale was too large: not faults."""
        self._steps: list[int] = []
        self._rows: list[Tensor] = []
        self._scaled = False

    def add(self, step: int, finite: Tensor, losses: Tensor, searching: Tensor | None = None) -> None:
        """Add step `step`: whether it was `finite` (bool), and whether each micro-batch's loss was (bool).

        `searching` (bool): where all losses are finite but the step is not, only the loss scale was too large.
        """
        self._steps.append(step)
        self._scaled = searching is not None
        flags = (finite.unsqueeze(0), losses) if searching is None else (finite.unsqueeze(0), losses, searching.view(1))
        self._rows.append(torch.cat(flags))

    def read(self) -> list[Skipped]:
        """Return the steps skipped since the last call but for `overflows`; update those, `total` and `in_a_row`.

        `overflows` are no part of a row of faults, and do not end one.
        """
        rows = torch.stack(self._rows).tolist() if self._rows else []
        skipped: list[Skipped] = []
        self.overflows = []
        for step, (finite, *losses) in zip(self._steps, rows, strict=True):
            searching = self._scaled and losses.pop()
            if searching and not finite and all(losses):
                self.overflows.append(step)
                continue
            self.in_a_row = 0 if finite else self.in_a_row + 1
            if not finite:
                self.total += 1
                skipped.append(
                    Skipped(step, [micro_batch for micro_batch, fine in enumerate(losses) if not fine], self.in_a_row)
                )
        self._steps, self._rows = [], []
        return skipped

    def state_dict(self) -> dict[str, int]:
        return {"total": self.total, "in_a_row": self.in_a_row}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.total, self.in_a_row = state["total"], state["in_a_row"]
