"""The run folder and its log: events go to the console, to log.jsonl and to TensorBoard.

    recipe.yaml      the recipe with all its values
    log.jsonl        one JSON object per event: start, step, epoch, checkpoint, unreadable, slow_data, skipped,
                     checkpoint_failed, preempted, failed, end
    tensorboard/     curves
    checkpoints/     last.pt, previous.pt, best.pt, epoch_NNNN.pt
    summary.json     best and last evaluation, epochs, steps, seconds, images/s
    state.json       {"status": "running" | "done" | "preempted" | "failed", "step": finished steps; while running those
                     in last.pt}

Epochs are counted from 1 and steps are finished optimizer steps. A full disk loses nothing of the log: what cannot be
written is kept and written later.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import math
import os
import shutil
import socket
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from tqdm import tqdm

from resnext_train.errors import InputError, printable

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
    def previous(self) -> Path:
        """The checkpoint before the newest."""
        return self.checkpoints / "previous.pt"

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
            if not (self.recipe.is_file() and self.recipe.read_text(encoding="utf-8") == recipe_yaml):
                _replace(self.recipe, recipe_yaml)
        except OSError as error:
            raise self._cannot_be_written(error) from error

    def claim(self) -> Claim:
        """Keep other runs out of the folder until the claim is closed, or this process ends.

        Raises:
            InputError: another run is in it, or it cannot be written to.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            return Claim(self.path / ".lock")
        except OSError as error:
            raise self._cannot_be_written(error) from error

    def check_room(self, checkpoint_bytes: int, keep: int) -> None:
        """See that the disk has room for all checkpoints of `checkpoint_bytes` that will be here, and a new one.

        They are last.pt, previous.pt, best.pt and `keep` of epochs.

        Raises:
            InputError: it has not.
        """
        here = len({file.stat().st_ino for file in self.checkpoints.glob("*.pt")})
        needed = max(1, 3 + keep + 1 - here) * checkpoint_bytes
        if (free := shutil.disk_usage(self.path).free) < needed:
            raise InputError(
                f"the disk of run folder {self.path} has {free / 1e6:.0f} MB free, but its checkpoints of "
                f"{checkpoint_bytes / 1e6:.0f} MB each need {needed / 1e6:.0f} MB; make room, or choose another --out"
            )

    def write_state(self, status: Status, step: int, **more: str) -> None:
        """Replace state.json; a disk that refuses that is told, but no reason to stop."""
        self._try_replace("state.json", json.dumps({"status": status, "step": step, **more}) + "\n")

    def write_summary(self, summary: dict[str, Any]) -> None:
        """Replace summary.json; a disk that refuses that is told, but no reason to stop."""
        self._try_replace("summary.json", to_json(summary, indent=2) + "\n")

    def _try_replace(self, name: str, text: str) -> None:
        try:
            _replace(self.path / name, text)
        except OSError as error:
            tell(f"{self.path / name} cannot be written: {error.strerror}")

    def sync_log(self) -> None:
        """Put what was logged on the disk for good."""
        with self.log.open("rb") as file:
            os.fsync(file.fileno())

    def _cannot_be_written(self, error: OSError) -> InputError:
        return InputError(f"run folder {self.path} cannot be written: {error.strerror}; choose another --out")


class Claim:
    """A lock on a run folder; the system lets go of it when the process ends, however it does."""

    _PATIENCE = 15.0
    """Seconds to wait for another run: one that was killed may still be dying."""

    def __init__(self, path: Path) -> None:
        """Lock the file `path`.

        Raises:
            InputError: another process has.
            OSError: it cannot be written.
        """
        self._path = path
        self._file = path.open("a+")
        deadline = time.monotonic() + self._PATIENCE
        while not (self._try() and self._is_there()):
            if time.monotonic() > deadline:
                self._file.seek(0)
                holder = self._file.read().strip() or "another process"
                self._file.close()
                raise InputError(f"{path.parent} is in use by {holder}; stop that run first, or choose another --out")
            time.sleep(0.2)
        self._file.truncate(0)
        self._file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        self._file.flush()

    def _is_there(self) -> bool:
        """Whether what is locked is still the file of that name; if not, open that one."""
        with contextlib.suppress(FileNotFoundError):
            if self._path.stat().st_ino == os.fstat(self._file.fileno()).st_ino:
                return True
        self._file.close()
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self._path.open("a+")
        return False

    def _try(self) -> bool:
        try:
            # Not flock: loader processes would inherit it, and outlive a killed run by some seconds.
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            return False
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
                raise  # else a file system without locks: then nothing can be known
        return True

    def close(self) -> None:
        """Let others in; where no run has come about, leave nothing behind."""
        folder = self._path.parent
        if not (folder / "recipe.yaml").exists():
            with contextlib.suppress(OSError):  # there is something else in it, or the disk is read-only
                self._path.unlink()
                folder.rmdir()
        self._file.close()


def _replace(path: Path, text: str) -> None:
    fresh = path.with_name(f".{path.name}.new")
    try:
        with fresh.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    except OSError:
        with contextlib.suppress(OSError):  # a read-only disk refuses this too
            fresh.unlink(missing_ok=True)
        raise


def tell(text: str) -> None:
    """Show a line on the console. A console that is gone or full is no reason to lose a run: the log has it all."""
    with contextlib.suppress(OSError, ValueError):
        tqdm.write(printable(text), file=sys.stderr)


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


class _Appended:
    """A file to append to that never fails: what a full disk refuses is kept, and written when there is room again."""

    def __init__(self, path: Path) -> None:
        self._path, self._file = path, path.open("ab", buffering=0)
        self._pending = b""
        self._failing = False

    def write(self, data: bytes) -> int:
        """Append `data` at once, or later."""
        self._pending += data
        try:
            while self._pending:
                self._pending = self._pending[self._file.write(self._pending) or 0 :]
            self._failing = False
        except OSError as error:
            if not self._failing:
                tell(f"{self._path} cannot be written: {error.strerror}; what is missing is kept")
            self._failing = True
        return len(data)

    def flush(self) -> None:
        """Nothing: there is no buffer but for what the disk refuses."""

    def close(self) -> None:
        """Close the file, after a last attempt."""
        self.write(b"")
        with contextlib.suppress(OSError):  # what a network's disk says now was said before
            self._file.close()


class JsonLines:
    """One line per event, each written at once."""

    def __init__(self, path: Path, step: int) -> None:
        """Continue `path` after `step` finished steps: what an interrupted run logged beyond that is cut off."""
        kept = _lines_until(path, step) if path.exists() else []
        _replace(path, "".join(kept))
        self._file = _Appended(path)

    def write(self, event: Event) -> None:
        """Append one line."""
        self._file.write((to_json(event) + "\n").encode())

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
    """The whole lines of a log but for events beyond `step`; a half-written last line is left out.

    Not all that follows an event beyond it is beyond it too: that a checkpoint is written is known some steps later.
    """
    kept: list[str] = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True):
        try:
            event = json.loads(line)
        except json.JSONDecodeError:
            break
        if not line.endswith("\n"):
            break
        if event.get("step", 0) <= step:
            kept.append(line)
    return kept


class TensorBoard:
    """Scalars by step: train/* and val/*.

    Written by TensorBoard's own record writer, but without its thread, which dies on a full disk, and without torch's
    wrapper, which takes two seconds to import.
    """

    _TRAIN = ("loss", "top1", "lr", "images_per_s", "data_wait")

    def __init__(self, folder: Path, step: int) -> None:
        from tensorboard.compat.proto import event_pb2, summary_pb2
        from tensorboard.summary.writer.record_writer import RecordWriter

        self._event, self._summary = event_pb2.Event, summary_pb2.Summary
        folder.mkdir(exist_ok=True)
        name = f"events.out.tfevents.{time.time():.6f}.{socket.gethostname()}.{os.getpid()}"
        self._file = _Appended(folder / name)
        self._records = RecordWriter(self._file)
        self._add(file_version="brain.Event:2")
        # TensorBoard drops what an interrupted run wrote from that step on.
        self._add(step=step + 1, session_log=event_pb2.SessionLog(status=event_pb2.SessionLog.START))

    def _add(self, **fields: Any) -> None:
        self._records.write(self._event(wall_time=time.time(), **fields).SerializeToString())

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
        values = [self._summary.Value(tag=k, simple_value=v) for k, v in scalars.items() if v is not None]
        self._add(step=event["step"], summary=self._summary(value=values))

    def tick(self, epoch: int, step_in_epoch: int) -> None:
        """Nothing."""

    def close(self) -> None:
        """Close the file."""
        self._file.close()


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
        with contextlib.suppress(OSError):
            self._bar.update(1)

    def write(self, event: Event) -> None:
        """Show a step in the bar; show an epoch, and what the user should know of the data, as a line of its own."""
        if event["event"] == "step":
            self._step(event)
        elif event["event"] in ("unreadable", "slow_data", "skipped", "checkpoint_failed"):
            tell(event["text"])
        elif event["event"] == "epoch":
            self.close()
            tell(_epoch_line(event, self._epochs))

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
        elif not self._is_terminal and time.monotonic() - self._spoke > _LINE_SECONDS:
            self._spoke = time.monotonic()
            tell(f"epoch {event['epoch']}/{self._epochs} step {event['step']}: {text}")

    def close(self) -> None:
        """Take the bar away."""
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


def open_log(
    folder: RunFolder, tensorboard: bool, step: int, epochs: int, steps_per_epoch: int, total_steps: int
) -> RunLog:
    """The log of a run's first process, continued after `step` finished steps.

    Raises:
        InputError: it cannot be written.
    """
    try:
        sinks: list[Sink] = [JsonLines(folder.log, step), Console(epochs, steps_per_epoch, total_steps, step)]
        if tensorboard:
            sinks.append(TensorBoard(folder.path / "tensorboard", step))
    except OSError as error:
        raise InputError(f"the log in {folder.path} cannot be written: {error.strerror}") from error
    return RunLog(tuple(sinks))


def environment() -> dict[str, Any]:
    """Versions, host, git commit and command line, for the start event."""
    import platform

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
