"""MLflow: curves, pictures, the recipe as parameters, and how the run ended."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from resnext_train.run_dir.sink import Event, Pixels, Sink
from resnext_train.run_dir.trackers.logged_scalars import scalars_of
from resnext_train.run_dir.trackers.tracked_run import TrackedRun

_LONGEST_PARAM, _PARAMS_AT_ONCE, _LONGEST_TAG = 6000, 100, 5000
"""Limits of MLflow: characters of a parameter, parameters in one call, characters of a tag."""

_STATUS = {"end": "FINISHED", "preempted": "KILLED", "failed": "FAILED"}
"""MLflow's status by the event that a run ends with."""


class MlflowSink(Sink):
    """A run at MLFLOW_TRACKING_URI; without that, in mlflow.db, a SQLite file beside the run folder.

    A resumed run goes on under its id. Steps after the checkpoint that an interrupted run had logged are logged again
    and stay there twice, under the same step: the later time stamp is that of the run that went on.
    """

    def __init__(self, run: TrackedRun) -> None:
        for name in ("mlflow", "alembic"):  # no lines about tables that they make
            logging.getLogger(name).setLevel(logging.WARNING)
        from mlflow.tracking import MlflowClient

        uri = os.environ.get("MLFLOW_TRACKING_URI") or _own_store(run.folder.resolve().parent / "mlflow.db")
        self._client = MlflowClient(uri)
        known = run.known_id("mlflow")
        self._id = known if known and self._is_there(known) else self._create(run, uri)
        run.ids.put("mlflow", self._id)
        self._client.update_run(self._id, status="RUNNING")
        self._log_recipe(run)
        self._status = "FAILED"

    def _is_there(self, run_id: str) -> bool:
        from mlflow.exceptions import MlflowException

        try:
            self._client.get_run(run_id)
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return False
            raise
        return True

    def _create(self, run: TrackedRun, uri: str) -> str:
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "resnext-train")
        experiment = self._client.get_experiment_by_name(name)
        # A server knows where it keeps files. A SQLite file alone would keep them in the folder of the command.
        files = (run.folder.resolve().parent / "mlruns").as_uri() if uri.startswith("sqlite:") else None
        number = experiment.experiment_id if experiment else self._client.create_experiment(name, files)
        created: str = self._client.create_run(number, run_name=run.name).info.run_id
        return created

    def _log_recipe(self, run: TrackedRun) -> None:
        """Log the recipe as parameters. MLflow never changes one: a resumed run's new values become tags recipe.KEY."""
        from mlflow.entities import Param, RunTag

        wanted = {key: _text(value)[:_LONGEST_PARAM] for key, value in run.flat_recipe()}
        held: Mapping[str, str] = self._client.get_run(self._id).data.params
        new = [Param(key, value) for key, value in wanted.items() if key not in held]
        for first in range(0, len(new), _PARAMS_AT_ONCE):
            self._client.log_batch(self._id, params=new[first : first + _PARAMS_AT_ONCE])
        changed = [
            RunTag(f"recipe.{key}", value[:_LONGEST_TAG])
            for key, value in wanted.items()
            if key in held and held[key] != value
        ]
        self._client.log_batch(self._id, tags=changed)

    def write(self, event: Event) -> None:
        """Write the scalars of a step or an epoch; of a start, from which host, commit and command it was, as tags."""
        from mlflow.entities import Metric, RunTag

        now = round(1000 * time.time())
        if scalars := scalars_of(event):
            self._client.log_batch(self._id, [Metric(k, v, now, event["step"]) for k, v in scalars.items()])
        elif event["event"] == "start":
            origin = {key: event.get(key) for key in ("host", "git_commit", "command")}
            tags = [RunTag(key, _text(value)[:_LONGEST_TAG]) for key, value in origin.items()]
            self._client.log_batch(self._id, tags=tags)
        self._status = _STATUS.get(event["event"], self._status)

    def picture(self, name: str, pixels: Pixels, step: int) -> None:
        self._client.log_image(self._id, pixels, key=name, step=step)

    def close(self) -> None:
        self._client.set_terminated(self._id, self._status)


def _own_store(path: Path) -> str:
    """Return the URI of a SQLite file, which is made if it is not there.

    MLflow makes its tables in some seconds. A file whose making was interrupted could never be used: it gets its name
    once it has them all.
    """
    from mlflow.tracking import MlflowClient

    if not path.exists():
        new = path.with_name(f".{path.name}.{os.getpid()}.new")
        new.unlink(missing_ok=True)
        MlflowClient(f"sqlite:///{new}")
        try:
            os.link(new, path)
        except FileExistsError:  # another run was faster
            pass
        except OSError:  # a file system without links
            new.replace(path)
        new.unlink(missing_ok=True)
    return f"sqlite:///{path}"


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
