"""The run folder: its paths, and what is written there beside the log."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from resnext_train.atomic_file import write_text_atomically
from resnext_train.errors import InputError
from resnext_train.run_dir.console import print_line
from resnext_train.run_dir.jsonl_sink import to_json
from resnext_train.run_dir.run_lock import RunLock

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
    def recipe(self) -> Path:
        """The resolved recipe. A folder that has one holds a run."""
        return self.path / "recipe.yaml"

    @property
    def log(self) -> Path:
        return self.path / "log.jsonl"

    def create(self, recipe_yaml: str) -> None:
        """Make the folder and write the recipe into it.

        Raises:
            InputError: the folder cannot be made or written to.
        """
        try:
            self.checkpoints.mkdir(parents=True, exist_ok=True)
            if not (self.recipe.is_file() and self.recipe.read_text(encoding="utf-8") == recipe_yaml):
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
            return RunLock(self.path / ".lock")
        except OSError as error:
            raise self._cannot_be_written(error) from error

    def check_room(self, checkpoint_bytes: int, keep: int) -> None:
        """Check that the disk has room for all checkpoints of `checkpoint_bytes` and a temporary one.

        They are last.pt, previous.pt, best.pt and `keep` of epochs.

        Raises:
            InputError: it has too little.
        """
        here = len({file.stat().st_ino for file in self.checkpoints.glob("*.pt")})
        needed = max(1, 3 + keep + 1 - here) * checkpoint_bytes
        if (free := shutil.disk_usage(self.path).free) < needed:
            raise InputError(
                f"the disk of run folder {self.path} has {free / 1e6:.0f} MB free, but its checkpoints of "
                f"{checkpoint_bytes / 1e6:.0f} MB each need {needed / 1e6:.0f} MB; make room, or choose another --out"
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
            print_line(f"{self.path / name} cannot be written: {error.strerror}")

    def sync_log(self) -> None:
        with self.log.open("rb") as file:
            os.fsync(file.fileno())

    def _cannot_be_written(self, error: OSError) -> InputError:
        return InputError(f"run folder {self.path} cannot be written: {error.strerror}; choose another --out")
