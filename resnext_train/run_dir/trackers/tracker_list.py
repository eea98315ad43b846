"""The trackers that log.to may name. To add one: a module with its sink, a line in TRACKERS, its name in LogSection."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec

from resnext_train.errors import MissingLibraryError
from resnext_train.run_dir.sink import Sink
from resnext_train.run_dir.trackers.csv_sink import CsvSink
from resnext_train.run_dir.trackers.mlflow_sink import MlflowSink
from resnext_train.run_dir.trackers.tensorboard_sink import TensorBoardSink
from resnext_train.run_dir.trackers.tracked_run import TrackedRun
from resnext_train.run_dir.trackers.tracker_guard import BackgroundTracker, TrackerGuard
from resnext_train.run_dir.trackers.wandb_sink import WandbSink, end_service


@dataclass(frozen=True)
class Tracker:
    """How a tracker is opened."""

    build: Callable[[TrackedRun], Sink]
    takes_arrays: bool = False
    """Whether it has use for pictures and histograms."""
    libraries: tuple[str, ...] = ()
    """What its extra of the package installs; imported where it is chosen."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Variables that the library reads as it is imported, where the user has not set them."""
    in_thread: bool = False
    """Whether its calls may take long, as those of a network."""
    abandon: Callable[[], None] | None = None
    """What ends its calls that hang, where they would keep this process from ending."""


TRACKERS: dict[str, Tracker] = {
    "tensorboard": Tracker(TensorBoardSink, takes_arrays=True),
    "csv": Tracker(CsvSink),
    "wandb": Tracker(WandbSink, takes_arrays=True, libraries=("wandb",), in_thread=True, abandon=end_service),
    "mlflow": Tracker(
        MlflowSink,
        takes_arrays=True,
        libraries=("mlflow", "sqlalchemy", "alembic"),
        environment={"MLFLOW_DISABLE_TELEMETRY": "true"},  # a thread that calls home
        in_thread=True,
    ),
}


def check_installed(names: Iterable[str]) -> None:
    """Raise MissingLibraryError unless the libraries of all trackers `names` are installed. Imports none of them."""
    for name in names:
        if missing := [library for library in TRACKERS[name].libraries if not _is_installed(library)]:
            raise MissingLibraryError(
                f"log.to names {name}, for which {' and '.join(missing)} must be installed: "
                f"pip install 'resnext-train[{name}]'"
            )


def _is_installed(library: str) -> bool:
    """Return whether a library can be imported; a folder of its name, as W&B makes in a current one, is none."""
    found = find_spec(library)
    return found is not None and found.origin is not None


def open_tracker(name: str, run: TrackedRun) -> TrackerGuard:
    """Open a tracker for a run. It never raises; what goes wrong is in its faults."""
    tracker = TRACKERS[name]

    def build() -> Sink:
        return tracker.build(run)

    if not tracker.in_thread:
        return TrackerGuard(name, tracker.takes_arrays, build)
    # By the main thread, before it forks loader processes: a module that another thread is importing at that moment
    # can never be imported in them. A library that cannot be imported fails again in `build`, which tells it.
    for variable, value in tracker.environment.items():
        os.environ.setdefault(variable, value)
    for library in tracker.libraries:
        try:
            import_module(library)
        except Exception:
            break
    return BackgroundTracker(name, tracker.takes_arrays, build, tracker.abandon)
