"""Weights & Biases: curves, pictures, histograms and the recipe."""

from __future__ import annotations

import os
import secrets
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resnext_train.run_dir.console import print_warning
from resnext_train.run_dir.logged_scalars import scalars_of
from resnext_train.run_dir.sink import Event, Pixels, Sink
from resnext_train.run_dir.tracked_run import TrackedRun

_EXIT_CODES = {"end": 0, "preempted": 75, "failed": 1}
"""Exit code by the event that a run ends with. A run without one has failed, too."""


class WandbSink(Sink):
    """A run at W&B, or in wandb/ of the run folder where WANDB_MODE is offline or no one is logged in.

    A resumed run goes on under its id. Its curves have the training step as x-axis: W&B's own counter of rows can not
    go back to the step of a checkpoint.
    """

    def __init__(self, run: TrackedRun) -> None:
        import wandb

        run_id = run.known_id("wandb") or secrets.token_hex(4)
        run.ids.put("wandb", run_id)
        # It takes no output, and replaces no handler of a signal: this is not the main thread.
        settings = wandb.Settings(silent=True, console="off", disable_git=True, disable_code=True)
        wandb.setup(settings)
        mode = os.environ.get("WANDB_MODE", "online")
        if mode == "online" and not wandb.login(prompt=False, verify=False):
            print_warning(
                "warning: no one is logged in to W&B, so it is written offline; `wandb login`, or set WANDB_API_KEY, "
                f"and upload by `wandb sync {run.folder / 'wandb'}/offline-run-*`; WANDB_MODE=offline says nothing"
            )
            mode = "offline"
        self._wandb = wandb
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "resnext-train"),
            dir=run.folder,
            id=run_id,
            name=run.name,
            resume="allow",
            reinit="create_new",
            config=dict(run.recipe),
            mode=mode,
            settings=settings,
        )
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")
        self._exit_code = 1

    def write(self, event: Event) -> None:
        """Write the scalars of a step or an epoch; of a start, from which host, commit and command it was."""
        if scalars := scalars_of(event):
            self._run.log({"step": event["step"], **scalars})
        elif event["event"] == "start":
            origin = {key: event.get(key) for key in ("host", "git_commit", "command")}
            self._run.config.update({"started": origin}, allow_val_change=True)
        self._exit_code = _EXIT_CODES.get(event["event"], self._exit_code)

    def picture(self, name: str, pixels: Pixels, step: int) -> None:
        self._run.log({"step": step, name: self._wandb.Image(pixels)})

    def histogram(self, name: str, values: NDArray[np.floating[Any]], step: int) -> None:
        self._run.log({"step": step, name: self._wandb.Histogram(np_histogram=np.histogram(values, bins=30))})

    def close(self) -> None:
        """Finish the run, which uploads what is still here."""
        self._run.finish(exit_code=self._exit_code)
