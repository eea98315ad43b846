"""Weights & Biases: curves, pictures, histograms and the recipe."""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from resnext_train.run_dir.console import print_warning
from resnext_train.run_dir.sink import Event, Pixels, Sink
from resnext_train.run_dir.trackers.logged_scalars import scalars_of
from resnext_train.run_dir.trackers.secrets import without_secrets
from resnext_train.run_dir.trackers.tracked_run import TrackedRun

if TYPE_CHECKING:
    from wandb import Run

_EXIT_CODES = {"end": 0, "preempted": 75, "failed": 1}
"""Exit code by the event that a run ends with. A run without one has failed, too."""


INIT_SECONDS = 30.0
"""How long W&B may take to begin a run, and to finish it; after that it begins it offline."""


class WandbSink(Sink):
    """A run at W&B, or in wandb/ of the run folder where WANDB_MODE is offline or no one is logged in.

    A resumed run goes on under its id. Its curves have the training step as x-axis: W&B's own counter of rows can not
    go back to the step of a checkpoint.
    """

    def __init__(self, run: TrackedRun) -> None:
        import wandb

        run_id = run.known_id("wandb") or secrets.token_hex(4)
        run.ids.put("wandb", run_id)
        # No output is captured, and no handler of a signal replaced: this is not the main thread.
        settings = wandb.Settings(
            silent=True,
            console="off",
            disable_git=True,
            disable_code=True,
            init_timeout=INIT_SECONDS,
            finish_timeout=INIT_SECONDS,
            x_transaction_log_flush_interval=1.0,  # its process keeps nothing of a run that is killed, but that file
        )
        wandb.setup(settings)
        self._wandb = wandb
        options = {
            "project": os.environ.get("WANDB_PROJECT", "resnext-train"),
            "dir": run.folder,
            "id": run_id,
            "name": run.name,
            "resume": "allow",
            "reinit": "create_new",
            "config": dict(run.recipe),
            "settings": settings,
        }
        self._run = _begin(options, os.environ.get("WANDB_MODE", "online"), run.folder)
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")
        self._exit_code = 1

    def write(self, event: Event) -> None:
        """Write the scalars of a step or an epoch; of a start, from which host, commit and command it was."""
        if scalars := scalars_of(event):
            self._run.log({"step": event["step"], **scalars})
        elif event["event"] == "start":
            origin = {key: event.get(key) for key in ("host", "git_commit", "command")}
            self._run.config.update({"started": origin}, allow_val_change=True)  # type: ignore[no-untyped-call]
        self._exit_code = _EXIT_CODES.get(event["event"], self._exit_code)

    def picture(self, name: str, pixels: Pixels, step: int) -> None:
        self._run.log({"step": step, name: self._wandb.Image(pixels)})

    def histogram(self, name: str, values: NDArray[np.floating[Any]], step: int) -> None:
        self._run.log({"step": step, name: self._wandb.Histogram(np_histogram=np.histogram(values, bins=30))})

    def close(self) -> None:
        """Finish the run, which uploads what is still here."""
        self._run.finish(exit_code=self._exit_code)


def _begin(options: dict[str, Any], mode: Any, folder: Path) -> Run:
    """Begin a run; offline, with a warning, where no one is logged in or W&B does not answer."""
    import wandb

    later = f"upload it by `wandb sync {folder / 'wandb'}/offline-run-*`"
    if mode == "online" and not wandb.login(prompt=False, verify=False):
        mode = "offline"
        print_warning(
            "warning: no one is logged in to W&B, so this run is written offline: `wandb login`, or set WANDB_API_KEY; "
            f"{later}; WANDB_MODE=offline if this is meant"
        )
    try:
        return wandb.init(mode=mode, **options)
    except wandb.errors.CommError as error:
        reason = without_secrets(" ".join(str(error).split()))
        print_warning(f"warning: W&B cannot be reached, so this run is written offline: {reason}; {later}")
        wandb.teardown()  # its process holds the id
        return wandb.init(mode="offline", **options)


def end_service() -> None:
    """End the process by which W&B writes and uploads; while that waits for a server, this one could not end.

    W&B offers no way to it.
    """
    from wandb.sdk import wandb_setup

    service = wandb_setup.singleton()._connection
    if service is not None and service._proc is not None:
        if service._cleanup is not None:
            service._cleanup()  # its hook at exit, which waits for that process
        service._proc._process.kill()
