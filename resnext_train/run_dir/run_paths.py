"""The run folder: its paths, and what is written there beside the log."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from resnext_train.atomic_file import write_text_atomically
from resnext_train.errors import InputError
from resnext_train.regular_file import read_regular, why_no_file
from resnext_train.run_dir.console import print_warning
from resnext_train.run_dir.jsonl_sink import read_log, to_json
from resnext_train.run_dir.run_lock import RunLock, holder_of

Status = Literal["running", "done", "preempted", "failed"]


@dataclass(frozen=True)
class RunDir:
    """The folder in which a run keeps everything."""

    path: Path

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def last(self) -> Path:
        return self.checkpoints / "last.pt"

    @property
    def previous(self) -> Path:
        return self.checkpoints / "previous.pt"

    @property
    def best(self) -> Path:
        return self.checkpoints / "best.pt"

    def epochs(self) -> list[Path]:
        """Return the checkpoints of single epochs, epoch_NNNN.pt, in the order of their epochs."""
        named = [path for path in self.checkpoints.glob("epoch_*.pt") if path.stem[len("epoch_") :].isdecimal()]
        return sorted(named, key=epoch_of)

    def newest_first(self) -> list[Path]:
        """Return the checkpoints that a run may be continued from, the newest first; they need not be there."""
        return [self.last, self.previous, self.best, *reversed(self.epochs())]

    def remove_old_epochs(self, keep: int) -> None:
        """Remove all checkpoints of single epochs but the newest `keep`, if any are to be kept.

        A failure is printed, and does not end the run.
        """
        for old in self.epochs()[:-keep] if keep else ():
            try:
                old.unlink()
            except OSError as error:
                print_warning(f"{old} cannot be removed: {error.strerror}")

    @property
    def recipe(self) -> Path:
        """The resolved recipe. A folder that has one holds a run."""
        return self.path / "recipe.yaml"

    @property
    def log(self) -> Path:
        return self.path / "log.jsonl"

    @property
    def trace(self) -> Path:
        """What `--profile` recorded, for chrome://tracing and Perfetto."""
        return self.path / "trace.json.gz"

    def trace_of_saves(self) -> Path | None:
        """Return a file which shows that a run has saved a checkpoint here, whether that is still there or not."""
        if saved := sorted(self.checkpoints.glob("*.pt")):
            return saved[0]  # best.pt comes first
        state = self.path / "state.json"
        if _state_of_saved_run(state):
            return state
        try:
            events = read_log(self.log).events
        except OSError:  # said when the log is opened
            return None
        return self.log if any(event["event"] == "checkpoint" for event in events) else None

    def origin(self) -> str | None:
        """Return the checkpoint that the run in this folder began from, as its log has it; None for none."""
        try:
            events = read_log(self.log).events
        except OSError:  # said when the log is opened
            return None
        first = next((event for event in events if event["event"] == "start"), {})
        return first.get("continued_from")

    def create(self, recipe_yaml: str) -> None:
        """Make the folder and write the recipe into it.

        Raises:
            InputError: the folder cannot be made or written to.
        """
        try:
            self.checkpoints.mkdir(parents=True, exist_ok=True)
            for unfinished in self.checkpoints.glob(".*.new"):  # of a run that was killed
                unfinished.unlink()
            if folder := next((path for path in self.newest_first() if path.is_dir()), None):
                raise InputError(f"{folder} is a folder, and a checkpoint is to be written there; move it away")
            if not (self.recipe.is_file() and self.recipe.read_bytes() == recipe_yaml.encode()):
                write_text_atomically(self.recipe, recipe_yaml)
        except OSError as error:
            raise self._cannot_be_written(error) from error

    def lock(self) -> RunLock:
        """Keep other runs out of the folder until the lock is closed, or this process ends.

        Raises:
            InputError: another run is in it, or it cannot be written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            return RunLock(self.lock_file)
        except OSError as error:
            raise self._cannot_be_written(error) from error

    def check_usable(self) -> None:
        """Check, without writing, what would keep a run from this folder, as far as that can be seen.

        Raises:
            InputError: the folder cannot be written, or another run is in it.
        """
        place = self._nearest()
        if not os.access(place, os.W_OK | os.X_OK):
            raise self._cannot_be_written(PermissionError(errno.EACCES, f"{place} is not writable for this user"))
        if why := os.path.lexists(self.log) and why_no_file(self.log):
            raise InputError(f"the log in {self.path} cannot be written: {self.log.name} {why}")
        if holder := holder_of(self.lock_file):
            raise InputError(f"{self.path} is in use by {holder}; stop that run first, or choose another --out")

    @property
    def lock_file(self) -> Path:
        return self.path / ".lock"

    def _nearest(self) -> Path:
        """Return the folder, or while it is not there the nearest one above it.

        Raises:
            InputError: that is no folder.
        """
        place = next(p for p in (self.path, *self.path.absolute().parents) if os.path.lexists(p))
        if not place.is_dir():
            raise self._cannot_be_written(NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR)))
        return place

    def check_room(self, checkpoint_bytes: int, keep: int) -> None:
        """Check that the disk has room for all checkpoints of `checkpoint_bytes` and a temporary one.

        They are last.pt, previous.pt, best.pt and `keep` of epochs.

        Raises:
            InputError: it has too little.
        """
        here = len({path.stat().st_ino for path in self.newest_first() if path.is_file()})
        needed = max(1, 3 + keep + 1 - here) * checkpoint_bytes
        if (free := shutil.disk_usage(self._nearest()).free) < needed:
            raise InputError(
                f"the disk of run folder {self.path} has {free / 1e6:.1f} MB free, but its checkpoints of "
                f"{checkpoint_bytes / 1e6:.1f} MB each need {needed / 1e6:.1f} MB; make room, or choose another --out"
            )

    def write_state(self, status: Status, step: int, **more: str) -> None:
        """Replace state.json; a failure is printed, and does not end the run."""
        self._try_replace("state.json", json.dumps({"status": status, "step": step, **more}) + "\n")

    def write_summary(self, summary: dict[str, Any]) -> None:
        """Replace summary.json; a failure is printed, and does not end the run."""
        self._try_replace("summary.json", to_json(summary, indent=2) + "\n")

    def _try_replace(self, name: str, text: str) -> None:
        try:
            write_text_atomically(self.path / name, text)
        except OSError as error:
            print_warning(f"{self.path / name} cannot be written: {error.strerror}")

    def sync_log(self) -> None:
        with contextlib.suppress(FileNotFoundError), self.log.open("rb") as file:  # its removal loses no checkpoint
            os.fsync(file.fileno())

    def _cannot_be_written(self, error: OSError) -> InputError:
        return InputError(f"run folder {self.path} cannot be written: {error.strerror}; choose another --out")


def epoch_of(path: Path) -> int:
    """Return the epoch of a file called epoch_NNNN.pt."""
    return int(path.stem.removeprefix("epoch_"))


def _state_of_saved_run(path: Path) -> bool:
    """Return whether a state.json is of a run that has saved.

    One that runs, or has failed, states how far it came, also before its first save.
    """
    try:
        state = json.loads(read_regular(path, 1 << 20))
        return bool(state["status"] in ("done", "preempted") and state["step"] > 0)
    except (OSError, ValueError, RecursionError, KeyError, TypeError):  # none, or not ours
        return False
