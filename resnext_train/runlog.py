"""The run folder and its log: events go to the console, to log.jsonl and to TensorBoard.

    recipe.yaml      the recipe with all its values
    log.jsonl        one JSON object per event: start, step, epoch, checkpoint, unreadable, slow_data, end
    tensorboard/     curves
    checkpoints/     last.pt, best.pt, epoch_NNNN.pt
    summary.json     best and last evaluation, epochs, steps, seconds, images/s
    state.json       {"status": "running" | "done" | "preempted" | "failed", "step": finished steps}

Epochs are counted from 1 and steps are finished optimizer steps.
"""

from __future__ import annotations

import json
import math
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from tqdm import tqdm

from resnext_train.errors import InputError

Event = dict[str, Any]
Status = Literal["running", "done", "preempted", "failed"]

_LINE_SECONDS = 30.0
"""Seconds between two progress lines where the console is no terminal."""


@dataclass(frozen=True)
class RunFolder:
    """Where a run keeps everything."""

    path: Path

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints."""
        return self.path / "checkpoints"

    @property
    def last(self) -> Path:
        """The newest checkpoint."""
        return self.checkpoints / "last.pt"

    @property
    def recipe(self) -> Path:
        """The resolved recipe; a folder that has it holds a run."""
        return self.path / "recipe.yaml"

    @property
    def log(self) -> Path:
        """The events."""
        return self.path / "log.jsonl"

    def create(self, recipe_yaml: str) -> None:
        """Make the folder and write the recipe.

        Raises:
            InputError: the folder cannot be made or written to.
        """
        try:
            self.checkpoints.mkdir(parents=True, exist_ok=True)
            _replace(self.recipe, recipe_yaml)
        except OSError as error:
            raise InputError(
                f"run folder {self.path} cannot be written: {error.strerror}; choose another --out"
            ) from error

    def write_state(self, status: Status, step: int) -> None:
        """Replace state.json."""
        _replace(self.path / "state.json", json.dumps({"status": status, "step": step}) + "\n")

    def write_summary(self, summary: dict[str, Any]) -> None:
        """Replace summary.json."""
        _replace(self.path / "summary.json", to_json(summary, indent=2) + "\n")


def _replace(path: Path, text: str) -> None:
    fresh = path.with_name(f".{path.name}.new")
    fresh.write_text(text, encoding="utf-8")
    fresh.replace(path)


class Sink(Protocol):
    """Somewhere that events go."""

    def write(self, event: Event) -> None:
        """Take one event."""

    def tick(self, epoch: int, step_in_epoch: int) -> None:
        """A step is over; called for each, so it must be cheap."""

    def close(self) -> None:
        """No more events come."""


class RunLog:
    """Hands events to all sinks; without sinks, as on all processes but the first, it does nothing."""

    def __init__(self, sinks: tuple[Sink, ...] = ()) -> None:
        self.sinks = sinks

    def write(self, event: str, **fields: Any) -> None:
        """Log one event."""
        for sink in self.sinks:
            sink.write({"event": event, **fields})

    def tick(self, epoch: int, step_in_epoch: int) -> None:
        """Move the progress bar."""
        for sink in self.sinks:
            sink.tick(epoch, step_in_epoch)

    def close(self) -> None:
        """Finish all sinks."""
        for sink in self.sinks:
            sink.close()


class JsonLines:
    """One line per event, each flushed as it is written."""

    def __init__(self, path: Path, step: int) -> None:
        """Continue `path` after `step` finished steps: what an interrupted run logged beyond that is cut off."""
        kept = list(_lines_until(path, step)) if path.exists() else []
        _replace(path, "".join(kept))
        self._file = path.open("a", encoding="utf-8")

    def write(self, event: Event) -> None:
        """Append one line."""
        self._file.write(to_json(event) + "\n")
        self._file.flush()

    def tick(self, epoch: int, step_in_epoch: int) -> None:
        """Nothing."""

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def to_json(value: Any, indent: int | None = None) -> str:
    """JSON text; null stands for NaN and infinity, which JSON does not have."""
    return json.dumps(_without_nan(value), indent=indent, allow_nan=False)


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_nan(v) for k, v in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _lines_until(path: Path, step: int) -> list[str]:
    """The whole lines of a log up to the first event beyond `step`; a half-written last line is left out."""
    kept: list[str] = []
    for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
        try:
            event = json.loads(line)
        except json.JSONDecodeError:
            break
        if not line.endswith("\n") or event.get("step", 0) > step:
            break
        kept.append(line)
    return kept


class TensorBoard:
    """Scalars by step: train/* and val/*."""

    _TRAIN = ("loss", "top1", "lr", "images_per_s", "data_wait")

    def __init__(self, folder: Path, step: int) -> None:
        # Takes two seconds to import, on the first process only.
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder), purge_step=step + 1)  # type: ignore[no-untyped-call]

    def write(self, event: Event) -> None:
        """Add the scalars of a step or an epoch."""
        if event["event"] == "step":
            scalars = {f"train/{name}": event[name] for name in self._TRAIN}
        elif event["event"] == "epoch" and event["val_count"]:
            count = event["val_count"]
            scalars = {
                "val/loss": event["val_loss"],
                "val/top1": 100 * event["val_top1_correct"] / count,
                "val/top5": 100 * event["val_top5_correct"] / count,
            }
        else:
            return
        for name, value in scalars.items():
            self._writer.add_scalar(name, value, event["step"])  # type: ignore[no-untyped-call]

    def tick(self, epoch: int, step_in_epoch: int) -> None:
        """Nothing."""

    def close(self) -> None:
        """Flush and close."""
        self._writer.close()  # type: ignore[no-untyped-call]


class Console:
    """A tqdm bar per epoch on a terminal; elsewhere a line at most every half minute."""

    def __init__(self, epochs: int, steps_per_epoch: int, total_steps: int, start: int) -> None:
        self._epochs, self._steps_per_epoch, self._total = epochs, steps_per_epoch, total_steps
        self._start, self._started, self._spoke = start, time.monotonic(), time.monotonic()
        self._bar: tqdm[Any] | None = None
        self._is_terminal = sys.stderr.isatty()

    def tick(self, epoch: int, step_in_epoch: int) -> None:
        """Move the bar, opening it in an epoch's first step."""
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
        self._bar.update(1)

    def write(self, event: Event) -> None:
        """Show a step in the bar; show an epoch, and what the user should know of the data, as a line of its own."""
        if event["event"] == "step":
            self._step(event)
        elif event["event"] in ("unreadable", "slow_data"):
            tqdm.write(event["text"], file=sys.stderr)
        elif event["event"] == "epoch":
            self.close()
            print(_epoch_line(event, self._epochs), file=sys.stderr, flush=True)

    def _step(self, event: Event) -> None:
        done = event["step"] - self._start
        left = (time.monotonic() - self._started) / done * (self._total - event["step"])
        text = (
            f"loss {event['loss']:.3f}, top-1 {event['top1']:.1f} %, {event['images_per_s']:.0f} images/s, "
            f"data-wait {100 * event['data_wait']:.1f} %, ETA {_duration(left)}"
        )
        if self._bar is not None:
            self._bar.set_postfix_str(text, refresh=False)
        elif not self._is_terminal and time.monotonic() - self._spoke > _LINE_SECONDS:
            self._spoke = time.monotonic()
            print(
                f"epoch {event['epoch']}/{self._epochs} step {event['step']}: {text}",
                file=sys.stderr,
                flush=True,
            )

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def _epoch_line(event: Event, epochs: int) -> str:
    line = f"epoch {event['epoch']}/{epochs}: train loss {event['train_loss']:.4f}, top-1 {event['train_top1']:.2f} %"
    if event["val_count"]:
        top1, top5 = (100 * event[f"val_{k}_correct"] / event["val_count"] for k in ("top1", "top5"))
        line += f"; val loss {event['val_loss']:.4f}, top-1 {top1:.2f} %, top-5 {top5:.2f} %"
    return f"{line}; {event['seconds']:.1f} s"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"


def open_log(
    folder: RunFolder, tensorboard: bool, step: int, epochs: int, steps_per_epoch: int, total_steps: int
) -> RunLog:
    """The log of a run's first process, continued after `step` finished steps."""
    sinks: list[Sink] = [JsonLines(folder.log, step), Console(epochs, steps_per_epoch, total_steps, step)]
    if tensorboard:
        sinks.append(TensorBoard(folder.path / "tensorboard", step))
    return RunLog(tuple(sinks))


def environment() -> dict[str, Any]:
    """Versions, host, git commit and command line, for the start event."""
    import platform
    import socket

    import torch
    import torchvision

    from resnext_train import __version__

    return {
        "versions": {
            "resnext_train": __version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "torchvision": torchvision.__version__,
        },
        "host": socket.gethostname(),
        "git_commit": _git_commit(),
        "command": sys.argv,
    }


def _git_commit() -> str | None:
    """The commit of the checkout that this package runs from, or None where it is installed or git is absent."""
    import subprocess

    here = Path(__file__).resolve().parent
    if not (here.parent / ".git").exists():
        return None
    try:
        done = subprocess.run(
            ["git", "-C", os.fspath(here), "rev-parse", "HEAD"],
            capture_output=True,
            text=True,
            check=True,
            timeout=5,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
