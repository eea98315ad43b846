"""TensorBoard: curves, pictures, histograms, the recipe as text, and its main values for the tab HPARAMS."""

from __future__ import annotations

import io
import os
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from resnext_train.run_dir.append_file import AppendFile
from resnext_train.run_dir.sink import Event, Pixels, Sink
from resnext_train.run_dir.trackers.logged_scalars import scalars_of
from resnext_train.run_dir.trackers.tracked_run import TrackedRun

if TYPE_CHECKING:
    from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata

_HPARAMS = (
    *("model.arch", "model.weights", "data.source", "augment.crop", "augment.size", "auto_augment.name"),
    *("erase.probability", "mix.mixup", "mix.cutmix", "optimizer.name", "optimizer.lr", "optimizer.lr_per_256"),
    *("optimizer.weight_decay", "optimizer.momentum", "schedule.name", "schedule.warmup", "train.epochs"),
    *("train.batch_size", "train.micro_batch", "train.precision", "train.label_smoothing", "train.loss", "train.seed"),
    "ema.decay",
)
"""Keys of the recipe that tell runs apart; a recipe has not all of them."""


class TensorBoardSink(Sink):
    """Event files in the run folder, so that TensorBoard calls the run as its folder is called.

    Uses TensorBoard's own record writer, without its thread, which dies on a full disk, and without torch's wrapper,
    which takes two seconds to import.
    """

    def __init__(self, run: TrackedRun) -> None:
        """Continue the curves of a run, of which TensorBoard forgets what was logged after its end."""
        from tensorboard.compat.proto import event_pb2, summary_pb2
        from tensorboard.summary.writer.record_writer import RecordWriter

        self._event, self._summary, end = event_pb2.Event, summary_pb2.Summary, run.end
        folder = events_folder(run.folder)
        name = f"events.out.tfevents.{time.time():.6f}.{socket.gethostname()}.{os.getpid()}"
        self._file = AppendFile(folder / name)
        self._records = RecordWriter(self._file)
        self._add(file_version="brain.Event:2")
        # TensorBoard drops all points from that step on. Those of the last step that stay valid are written again.
        first = end.step if end.epoch_is_open else end.step + 1
        self._add(step=first, session_log=event_pb2.SessionLog(status=event_pb2.SessionLog.START))
        for event in run.last_step if end.epoch_is_open else ():
            self.write(event)
        self._add_values(first, self._recipe(run), self._session_start(run))

    def _add(self, **fields: Any) -> None:
        self._records.write(self._event(wall_time=time.time(), **fields).SerializeToString())

    def _add_values(self, step: int, *values: Summary.Value) -> None:
        self._add(step=step, summary=self._summary(value=values))

    def write(self, event: Event) -> None:
        """Write the scalars of a step or an epoch, and that the run has ended."""
        if scalars := scalars_of(event):
            self._add_values(event["step"], *(self._summary.Value(tag=k, simple_value=v) for k, v in scalars.items()))
        if event["event"] == "end":
            self._add_values(event["step"], self._session_end())

    def picture(self, name: str, pixels: Pixels, step: int) -> None:
        height, width, channels = pixels.shape
        image = self._summary.Image(
            height=height, width=width, colorspace=channels, encoded_image_string=png_of(pixels)
        )
        self._add_values(step, self._summary.Value(tag=name, image=image))

    def histogram(self, name: str, values: NDArray[np.floating[Any]], step: int) -> None:
        from tensorboard.compat.proto.histogram_pb2 import HistogramProto

        counts, edges = np.histogram(values, bins=30)
        proto = HistogramProto(
            min=values.min(),
            max=values.max(),
            num=len(values),
            sum=values.sum(),
            sum_squares=np.square(values).sum(),
            bucket_limit=edges[1:],
            bucket=counts,
        )
        self._add_values(step, self._summary.Value(tag=name, histo=proto))

    def close(self) -> None:
        self._file.close()

    def _recipe(self, run: TrackedRun) -> Summary.Value:
        from tensorboard.compat.proto.summary_pb2 import SummaryMetadata
        from tensorboard.util.tensor_util import make_tensor_proto

        markdown = "".join(f"    {line}\n" for line in run.recipe_text.splitlines())  # a block of code
        metadata = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name="text"))
        tensor = make_tensor_proto(np.array([markdown.encode()], dtype=object))
        return self._summary.Value(tag="recipe", tensor=tensor, metadata=metadata)

    def _session_start(self, run: TrackedRun) -> Summary.Value:
        from tensorboard.plugins.hparams import metadata, plugin_data_pb2

        start = plugin_data_pb2.SessionStartInfo(start_time_secs=time.time())
        values = dict(run.flat_recipe())
        for key in _HPARAMS:
            value = values.get(key)
            if isinstance(value, bool):
                start.hparams[key].bool_value = value
            elif isinstance(value, (int, float)):
                start.hparams[key].number_value = value
            elif value is not None:
                start.hparams[key].string_value = str(value)
        data = plugin_data_pb2.HParamsPluginData(session_start_info=start)
        return self._hparams(metadata.SESSION_START_INFO_TAG, metadata.create_summary_metadata(data))

    def _session_end(self) -> Summary.Value:
        from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2

        end = plugin_data_pb2.SessionEndInfo(status=api_pb2.STATUS_SUCCESS, end_time_secs=time.time())
        data = plugin_data_pb2.HParamsPluginData(session_end_info=end)
        return self._hparams(metadata.SESSION_END_INFO_TAG, metadata.create_summary_metadata(data))

    def _hparams(self, tag: str, metadata: SummaryMetadata) -> Summary.Value:
        from tensorboard.plugins.hparams.metadata import NULL_TENSOR

        return self._summary.Value(tag=tag, metadata=metadata, tensor=NULL_TENSOR)


def events_folder(run: Path) -> Path:
    """Return where the event files of a run folder are: in itself, or in tensorboard/ where it has that.

    Runs had theirs there once, and go on there.
    """
    former = run / "tensorboard"
    return former if former.is_dir() else run


def png_of(pixels: Pixels) -> bytes:
    """Return a picture (height, width, 3) as a PNG file."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()
