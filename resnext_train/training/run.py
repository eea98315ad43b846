"""The entrance to a training run: lock its folder, find the checkpoint to continue from, build a `Trainer`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from typing import Any

from resnext_train.compute.backend import deterministic_algorithms
from resnext_train.distributed.dist_context import connect
from resnext_train.distributed.same_recipe import SAME_COMMAND
from resnext_train.distributed.stop_signals import StopSignals
from resnext_train.run_dir.run_paths import RunDir
from resnext_train.run_dir.step_profiler import StepProfiler
from resnext_train.training.saved_run import load_saved_run
from resnext_train.training.setup import Setup, set_up
from resnext_train.training.train_request import TrainRequest
from resnext_train.training.trainer import Trainer


@contextmanager
def prepared(request: TrainRequest) -> Iterator[Setup]:
    """Connect the ranks, and apply the recipe to its data and to them; inside, they train. Every rank calls this.

    Raises:
        InputError: see `connect` and `set_up`.
        FaultError: while inside, a rank or the connection to it is gone.
    """
    recipe = request.recipe
    with deterministic_algorithms(recipe.train.deterministic), connect(request.patience_seconds) as context:
        setup = set_up(recipe, context)
        context.check_agreement("was given", f"--out {request.folder.path} --resume {request.resume}", SAME_COMMAND)
        yield setup


def train(setup: Setup, folder: RunDir, resume: str, profile: int = 0) -> dict[str, Any]:
    """Train to the end of the recipe and return the summary. Every rank calls this.

    `resume` is auto, never or the path of a checkpoint or of a run folder, see checkpoint/resume.py. So many
    steps are profiled, see StepProfiler.

    Raises:
        Preempted: a signal stopped the run; it is saved.
        InputError: the run folder cannot be written, the checkpoint does not fit, an image cannot be read, or a loader
            process died.
        FaultError: a rank is gone, the ranks' weights differ, too many steps in a row were not finite, or checkpoints
            cannot be written.
    """
    context, section = setup.context, setup.recipe.train
    context.start_training(section.patience_seconds)
    with ExitStack() as stack:
        if lock := context.run_on_all_ranks(lambda: folder.lock() if context.is_main else None):
            stack.enter_context(closing(lock))
        signals = stack.enter_context(StopSignals(announce=context.is_main))
        with context.dead_ranks_named():
            # Under the lock: no other run can be writing checkpoints in the folder.
            saved = load_saved_run(setup, folder, resume)
            trainer = Trainer(saved.setup if saved else setup, folder, saved, signals)
            trainer.begin(saved)
            if profile and context.is_main:
                trainer.log.add(StepProfiler(folder, profile))
        return trainer.train()


def check(setup: Setup, folder: RunDir, resume: str) -> None:
    """Do what `train` does before it writes: find and fit the checkpoint or the weights, and look at the run folder.

    Every rank calls this.

    Raises:
        InputError: as `train` would.
    """
    setup.context.run_on_main(folder.check_usable)
    saved = load_saved_run(setup, folder, resume)
    Trainer(saved.setup if saved else setup, folder, saved, StopSignals(announce=False)).check_room()
