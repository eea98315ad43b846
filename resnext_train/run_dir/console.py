"""The console: progress, epochs and results go to stdout, warnings and errors to stderr.

On a terminal a bar shows the progress of an epoch or an evaluation; elsewhere, as in a file, a line at most every half
minute does. Nothing is coloured.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import time
from collections.abc import Generator, Iterable, Mapping
from typing import Any, Protocol, TypeVar

from tqdm import tqdm

from resnext_train.errors import printable
from resnext_train.run_dir.sink import Event, Sink


class _Counted(Protocol):
    @property
    def asked(self) -> int: ...


_Batch = TypeVar("_Batch", bound=_Counted)

_LINE_SECONDS = 30.0
"""Seconds between two progress lines where the console is no terminal."""

_BAR, _SHORTEST_BAR, _NARROW = 10, 4, 70
"""Columns that a bar has at least; on a terminal of at most so many, few."""

_FORMAT = "{desc} {percentage:3.0f}%|{bar}| "

_NOTICEABLE_WAIT = 0.05
"""Part of the time spent waiting for images from which on it is worth a place in a narrow bar."""


def print_warning(text: str) -> None:
    """Print a line to stderr. A console that is gone or full must not end a run: the log has everything."""
    with contextlib.suppress(OSError, ValueError):
        tqdm.write(printable(text), file=sys.stderr)


def print_line(text: str) -> None:
    """Print a line to stdout, with control characters in it escaped (see `printable`)."""
    print(printable(text), flush=True)


def print_progress(text: str) -> None:
    """Print a line to stdout, at once, also where that is a file."""
    with contextlib.suppress(OSError, ValueError):
        tqdm.write(printable(text), file=sys.stdout)
        sys.stdout.flush()


class Progress:
    """The progress of a pass over `total` steps or images: a bar on a terminal, elsewhere a line now and then.

    Both show what `show` was last given: the first of several wordings, the richest first, that the width has room for.
    """

    def __init__(self, labels: tuple[str, ...], total: int, done: int = 0) -> None:
        """Begin a pass of which `done` are done. `labels` names it, the longest wording first."""
        self._labels, self._total, self._done = labels, total, done
        self._bar: tqdm[Any] | None = None
        if _is_terminal():
            self._bar = tqdm(
                total=total,
                initial=done,
                desc=labels[0],
                leave=False,
                file=sys.stdout,
                ncols=_columns(),
                bar_format=_FORMAT,
            )

    def advance(self, count: int) -> None:
        count = min(count, self._total - self._done)
        self._done += count
        if self._bar is not None:
            self._bar.ncols = _columns()  # the terminal may have another width by now
            with contextlib.suppress(OSError):
                self._bar.update(count)

    def show(self, wordings: list[str], at_once: bool = False) -> None:
        """Show one of the `wordings` behind the bar, see `fitting`; `at_once`, or when the bar is next drawn."""
        if self._bar is None:
            return
        self._bar.desc, text = fitting(self._labels, wordings, _columns(), self._total)
        self._bar.bar_format = _FORMAT + text  # tqdm's own place for it begins with a comma
        if at_once:
            with contextlib.suppress(OSError):
                self._bar.refresh()

    def close(self) -> None:
        if self._bar is not None:
            with contextlib.suppress(OSError):
                self._bar.close()
            self._bar = None


def fitting(labels: tuple[str, ...], wordings: list[str], columns: int, total: int = 0) -> tuple[str, str]:
    """Return the richest label and wording that leave a bar room in so many columns; else the shortest ones.

    A wording may hold tqdm's {n_fmt} and {total_fmt}, what is done of the `total`.
    """
    fixed = len("  100%|| ")
    least = _BAR if columns > _NARROW else _SHORTEST_BAR
    for wording in wordings:
        length = fixed + len(wording.format(n_fmt=total, total_fmt=total)) + least
        for label in labels:
            if len(label) + length <= columns:
                return label, wording
    return labels[-1], wordings[-1]


class ConsoleSink(Sink):
    """A bar for each epoch on a terminal, elsewhere a line at most every half minute; and a line for each epoch."""

    def __init__(self, epochs: int, steps_per_epoch: int, total_steps: int, start: int) -> None:
        self._epochs, self._steps_per_epoch, self._total = epochs, steps_per_epoch, total_steps
        self._start, self._started, self._printed = start, time.monotonic(), 0.0
        self._progress: Progress | None = None
        self._last: Event | None = None

    def tick(self, epoch: int, step_in_epoch: int) -> None:
        """Advance the bar; open it at an epoch's first step, and close it at the last."""
        if self._progress is None:
            labels = (f"epoch {epoch}/{self._epochs}", f"{epoch}/{self._epochs}")
            self._progress = Progress(labels, self._steps_per_epoch, step_in_epoch - 1)
        self._progress.advance(1)
        if self._last is None:
            self._progress.show([_STEPS])
        if step_in_epoch == self._steps_per_epoch:
            self.close()  # an evaluation may have a bar of its own

    def write(self, event: Event) -> None:
        """Show a step in the bar, and an epoch or a warning as a line of its own."""
        if event["event"] == "step":
            self.show(event)
        elif event["event"] in ("unreadable", "slow_data", "skipped", "checkpoint_failed"):
            print_warning(event["text"])
        elif event["event"] == "epoch":
            self.close()
            for line in _epoch_lines(event, self._epochs):
                print_progress(line)

    def show(self, event: Event) -> None:
        """Show the numbers of a step event."""
        self._last = event
        left = (time.monotonic() - self._started) / (event["step"] - self._start) * (self._total - event["step"])
        wordings = _wordings(event, left)
        if self._progress is not None:
            self._progress.show(wordings, at_once=True)
        if not _is_terminal() and (not self._printed or time.monotonic() - self._printed > _LINE_SECONDS):
            self._printed = time.monotonic()
            at = (event["step"] - 1) % self._steps_per_epoch + 1
            numbers = wordings[0].format(n_fmt=at, total_fmt=self._steps_per_epoch)
            print_progress(f"epoch {event['epoch']}/{self._epochs} {numbers}")

    def close(self) -> None:
        if self._progress is not None:
            self._progress.close()
            self._progress = None


def evaluation_shown(
    batches: Iterable[_Batch], images: int, ranks: int, is_shown: bool, name: str = "", verb: str = "evaluating"
) -> Generator[_Batch, None, None]:
    """Yield this rank's `batches`, and show how many of the `images` all ranks have gone through, of the set `name`.

    The others are taken to be as fast as this one.
    """
    if not is_shown:
        yield from batches
        return
    what = f"{verb} {name}" if name else verb
    progress, done = Progress((what, verb), images), 0
    started = printed = time.monotonic()
    try:
        for batch in batches:
            yield batch
            count = ranks * batch.asked
            done = min(done + count, images)
            now = time.monotonic()
            rate = done / max(now - started, 1e-6)
            left = _duration((images - done) / rate) if done else "?"
            counted, speed = f"{done:,}/{images:,} images", f"{rate:.{0 if rate >= 10 else 1}f} images/s"
            progress.show([f"{counted}, {speed}, ETA {left}", f"{speed}, ETA {left}", f"ETA {left}"])
            progress.advance(count)
            if not _is_terminal() and now - printed > _LINE_SECONDS:
                printed = now
                print_progress(f"{what}: {counted}, {speed}, ETA {left}")
    finally:
        progress.close()


_STEPS = "step {n_fmt}/{total_fmt}"


def _wordings(event: Event, left: float) -> list[str]:
    """Return how a step's numbers may be told, the richest wording first."""
    rate, eta = f"{event['images_per_s']:.0f}", f"ETA {_duration(left)}"
    waited = event["data_wait"]
    if event["loss"] is None:
        trained = tight = short = "all steps skipped"
    else:
        loss = f"loss {event['loss']:.3f}"
        trained = f"{loss}, accuracy {event['top1']:.1f} %"
        tight, short = f"{loss} accuracy {event['top1']:.1f}%", f"{loss} acc {event['top1']:.1f}%"
    wait, short_wait = f"data-wait {100 * waited:.1f} %", f"wait {100 * waited:.0f}%"
    usual = [
        f"{trained}, {rate} images/s, {eta}",
        f"{tight} {rate} images/s {eta}",
        f"{short} {rate} images/s {eta}",
        f"{short} {rate}/s {eta}",
        f"{short} {eta}",
        short,
    ]
    slow = [f"{trained}, {rate} images/s, {wait}, {eta}", f"{short} {rate}/s {short_wait} {eta}"]
    rich = [f"{_STEPS}: {trained}, {rate} images/s, {wait}, {eta}"]
    if event.get("flops_per_s"):
        machine = f"{_flops(event['flops_per_s'])}, {event['memory_mb'] / 1000:.1f} GB"
        rich.insert(0, f"{_STEPS}: {trained}, {rate} images/s, {machine}, {wait}, {eta}")
    return [*rich, *slow, *usual] if waited > _NOTICEABLE_WAIT else [*rich, f"{_STEPS}: {usual[0]}", *usual]


def _flops(rate: float) -> str:
    return f"{rate / 1e12:.1f} TFLOP/s" if rate >= 1e12 else f"{rate / 1e9:.1f} GFLOP/s"


def _epoch_lines(event: Event, epochs: int) -> list[str]:
    """Return the line of an epoch, and one of the average of the weights where that is kept."""
    begin = f"epoch {event['epoch']}/{epochs}: "
    line = begin
    if event["train_loss"] is None:
        line += "all steps skipped"
    else:
        line += f"train loss {event['train_loss']:.4f}, accuracy {event['train_top1']:.2f} %"
    if event["val_count"]:
        top1, top5 = (100 * event[f"val_{k}_correct"] / event["val_count"] for k in ("top1", "top5"))
        line += f"; val loss {event['val_loss']:.4f}, accuracy {top1:.2f} %, top-5 accuracy {top5:.2f} %"
    line += f"{_further_sets(event)}; {event['seconds']:.1f} s"
    if (ema := event.get("ema")) is None:
        return [line]
    shown = f"ema loss {ema['loss']:.4f}, accuracy {ema['top1']:.2f} %, top-5 accuracy {ema['top5']:.2f} %"
    return [line, f"{begin}{shown}{_further_sets(ema)}"]


def _further_sets(evaluated: Mapping[str, Any]) -> str:
    return "".join(
        f"; {name} accuracy {100 * counts['top1_correct'] / counts['count']:.2f} %"
        for name, counts in (evaluated.get("also") or {}).items()
    )


def _is_terminal() -> bool:
    return sys.stdout.isatty() and os.environ.get("TERM") != "dumb"


def _columns() -> int:
    """Return how many columns a line may have: one less than the terminal, where some begin a new line at the end."""
    return shutil.get_terminal_size().columns - 1


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"
