"""The console: its progress bar and its lines."""

from __future__ import annotations

import contextlib
import sys
import time
from typing import Any

from tqdm import tqdm

from resnext_train.errors import printable
from resnext_train.run_dir.sink import Event

_LINE_SECONDS = 30.0
"""Seconds between two progress lines where the console is no terminal."""


def print_line(text: str) -> None:
    """Print a line to stderr. A console that is gone or full must not end a run: the log has everything."""
    with contextlib.suppress(OSError, ValueError):
        tqdm.write(printable(text), file=sys.stderr)


class ConsoleSink:
    """A tqdm bar per epoch on a terminal; elsewhere a line at most every half minute."""

    def __init__(self, epochs: int, steps_per_epoch: int, total_steps: int, start: int) -> None:
        self._epochs, self._steps_per_epoch, self._total = epochs, steps_per_epoch, total_steps
        self._start, self._started, self._printed = start, time.monotonic(), time.monotonic()
        self._bar: tqdm[Any] | None = None
        self._is_terminal = sys.stderr.isatty()

    def tick(self, epoch: int, step_in_epoch: int) -> None:
        """Advance the bar; open it at an epoch's first step."""
        if not self._is_terminal:
            return
        if self._bar is None:
            self._bar = tqdm(
                total=self._steps_per_epoch,
                initial=step_in_epoch - 1,
                desc=f"epoch {epoch}/{self._epochs}",
                unit="step",
                leave=False,
                dynamic_ncols=True,
                bar_format="{desc} {percentage:3.0f}%|{bar}| step {n_fmt}/{total_fmt}{postfix}",
            )
        with contextlib.suppress(OSError):
            self._bar.update(1)

    def write(self, event: Event) -> None:
        """Show a step in the bar, and an epoch or a warning as a line of its own."""
        if event["event"] == "step":
            self._step(event)
        elif event["event"] in ("unreadable", "slow_data", "skipped", "checkpoint_failed"):
            print_line(event["text"])
        elif event["event"] == "epoch":
            self.close()
            print_line(_epoch_line(event, self._epochs))

    def _step(self, event: Event) -> None:
        done = event["step"] - self._start
        left = (time.monotonic() - self._started) / done * (self._total - event["step"])
        trained = (
            "all steps skipped" if event["loss"] is None else f"loss {event['loss']:.3f}, top-1 {event['top1']:.1f} %"
        )
        text = (
            f"{trained}, {event['images_per_s']:.0f} images/s, data-wait {100 * event['data_wait']:.1f} %, "
            f"ETA {_duration(left)}"
        )
        if self._bar is not None:
            self._bar.set_postfix_str(text, refresh=False)
        elif not self._is_terminal and time.monotonic() - self._printed > _LINE_SECONDS:
            self._printed = time.monotonic()
            print_line(f"epoch {event['epoch']}/{self._epochs} step {event['step']}: {text}")

    def close(self) -> None:
        if self._bar is not None:
            with contextlib.suppress(OSError):
                self._bar.close()
            self._bar = None


def _epoch_line(event: Event, epochs: int) -> str:
    line = f"epoch {event['epoch']}/{epochs}: "
    if event["train_loss"] is None:
        line += "all steps skipped"
    else:
        line += f"train loss {event['train_loss']:.4f}, top-1 {event['train_top1']:.2f} %"
    if event["val_count"]:
        top1, top5 = (100 * event[f"val_{k}_correct"] / event["val_count"] for k in ("top1", "top5"))
        line += f"; val loss {event['val_loss']:.4f}, top-1 {top1:.2f} %, top-5 {top5:.2f} %"
    return f"{line}; {event['seconds']:.1f} s"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"
