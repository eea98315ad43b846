"""TensorBoard's curves."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from resnext_train.run_dir.append_file import AppendFile
from resnext_train.run_dir.sink import Event, LogEnd


class TensorBoardSink:
    """Scalars by step: train/*, val/*, and those of each set of eval.also under its name.

    Those of an average of the weights are beside the network's own: val/ema_accuracy.

    Uses TensorBoard's own record writer, without its thread, which dies on a full disk, and without torch's wrapper,
    which takes two seconds to import.
    """

    _TRAIN: ClassVar = {
        "loss": "loss",
        "top1": "accuracy",
        "lr": "lr",
        "images_per_s": "images_per_s",
        "data_wait": "data_wait",
        "memory_mb": "memory_mb",
        "flops_per_s": "flops_per_s",
        "loss_scale": "loss_scale",
    }

    def __init__(self, folder: Path, end: LogEnd, last_step: Sequence[Event]) -> None:
        """Continue the curves in `folder` after `end`, whose last step has the events `last_step` in the log."""
        from tensorboard.compat.proto import event_pb2, summary_pb2
        from tensorboard.summary.writer.record_writer import RecordWriter

        self._event, self._summary = event_pb2.Event, summary_pb2.Summary
        folder.mkdir(exist_ok=True)
        name = f"events.out.tfevents.{time.time():.6f}.{socket.gethostname()}.{os.getpid()}"
        self._file = AppendFile(folder / name)
        self._records = RecordWriter(self._file)
        self._add(file_version="brain.Event:2")
        # TensorBoard drops all points from that step on. Those of the last step that stay valid are written again.
        first = end.step if end.epoch_is_open else end.step + 1
        self._add(step=first, session_log=event_pb2.SessionLog(status=event_pb2.SessionLog.START))
        for event in last_step if end.epoch_is_open else ():
            self.write(event)

    def _add(self, **fields: Any) -> None:
        self._records.write(self._event(wall_time=time.time(), **fields).SerializeToString())

    def write(self, event: Event) -> None:
        """Write the scalars of a step or an epoch."""
        if event["event"] == "step":
            scalars = {f"train/{name}": event.get(key) for key, name in self._TRAIN.items()}
        elif event["event"] == "epoch" and event.get("val_count"):
            count = event["val_count"]
            scalars = {
                "val/loss": event["val_loss"],
                "val/accuracy": 100 * event["val_top1_correct"] / count,
                "val/top5_accuracy": 100 * event["val_top5_correct"] / count,
            }
            for name, of_set in (event.get("also") or {}).items():
                scalars |= _curves(f"{name}/", of_set)
            if ema := event.get("ema"):
                for name, of_set in {"val": ema, **(ema.get("also") or {})}.items():
                    scalars |= _curves(f"{name}/ema_", of_set)
        else:
            return
        numbers = {k: v for k, v in scalars.items() if isinstance(v, (int, float))}
        values = [self._summary.Value(tag=k, simple_value=v) for k, v in numbers.items()]
        self._add(step=event["step"], summary=self._summary(value=values))

    def tick(self, epoch: int, step_in_epoch: int) -> None:
        """Ignore steps."""

    def show(self, event: Event) -> None:
        """Ignore what is not logged."""

    def close(self) -> None:
        self._file.close()


def _curves(begin: str, counts: Mapping[str, Any]) -> dict[str, Any]:
    return {
        f"{begin}loss": counts["loss"],
        f"{begin}accuracy": 100 * counts["top1_correct"] / counts["count"],
        f"{begin}top5_accuracy": 100 * counts["top5_correct"] / counts["count"],
    }
