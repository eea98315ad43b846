"""A run in progress: its parts, and how far it is."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from torch import nn
from torch.utils.data import DataLoader

from resnext_train.checkpoint.checkpoint_writer import CheckpointWriter
from resnext_train.data.image_batch import ImageBatch, UnreadableImage
from resnext_train.distributed.flag_sync import FlagSync
from resnext_train.distributed.stop_signals import StopSignals
from resnext_train.run_dir.console import print_line
from resnext_train.run_dir.run_logger import RunLogger
from resnext_train.run_dir.run_paths import RunDir
from resnext_train.training.lr_schedule import Schedule
from resnext_train.training.setup import Setup
from resnext_train.training.throughput import Clock, DataWait
from resnext_train.training.train_step import TrainStep

TOO_MANY_FAILED = 2**31
"""Value of `StepFlags.trouble` when too many checkpoints in a row could not be written."""


class StepFlags(NamedTuple):
    """What the ranks agree on at a step boundary: the largest of each over all ranks."""

    stop_signal: int
    """Number of the signal to stop for, or 0."""
    save: bool | int
    """Whether it is time for a checkpoint."""
    trouble: int
    """Rank 0's trouble with checkpoints: 0, the epoch of a best one that could not be written, or TOO_MANY_FAILED."""


@dataclass
class Progress:
    """How far a run is, as stored in its checkpoints."""

    step: int = 0
    epoch_is_open: bool = False
    """Whether the epoch that `step` ended still has to be evaluated: the run was stopped during its evaluation."""
    seconds: float = 0.0
    epoch_began: float = 0.0
    """`seconds` when the running epoch began."""
    best: dict[str, Any] | None = None
    last: dict[str, Any] | None = None


@dataclass
class TrainingRun:
    """What a run needs for its next step, and what it writes to."""

    setup: Setup
    folder: RunDir
    log: RunLogger
    step: TrainStep
    schedule: Schedule
    val_loader: DataLoader[ImageBatch | UnreadableImage]
    progress: Progress
    data_wait: DataWait
    checkpoint_writer: CheckpointWriter
    """Used by rank 0 alone."""
    signals: StopSignals
    flag_sync: FlagSync
    clock: Clock = field(default_factory=Clock)
    saved_at: float = field(default_factory=time.monotonic)
    """When the last save began, by time.monotonic."""
    trouble: int = 0
    """Trouble that rank 0 has not yet reported to the others, see StepFlags."""
    best_before: dict[str, Any] | None = None
    """The best evaluation before `progress.best`, in case that one cannot be saved."""

    def log_unreadable(self, text: str) -> None:
        """Log an image that could not be read; ranks without the log print it."""
        if self.setup.context.is_main:
            self.log.write("unreadable", step=self.progress.step, text=text)
        else:
            print_line(f"process {self.setup.context.rank}: {text}")

    @property
    def model(self) -> nn.Module:
        return self.step.model
