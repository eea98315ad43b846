"""`resnext train`: train a network from a recipe."""

from __future__ import annotations

import torch

from resnext_train.cli.run_command import announce, warn
from resnext_train.cli.run_description import counted, run_description
from resnext_train.config import deviation_lines, reference_of
from resnext_train.run_dir.run_paths import RunDir
from resnext_train.run_dir.step_profiler import WARM_UP_STEPS
from resnext_train.training import run
from resnext_train.training.setup import Setup
from resnext_train.training.train_request import TrainRequest


def train(request: TrainRequest) -> None:
    """Train, and print what is done and what it led to."""
    with run.prepared(request) as setup:
        if setup.context.is_main:
            for name, text in run_description(setup, request.folder).items():
                announce(f"{name:14s}{text}")
            _suggest_procs(setup)
            for note in request.notes:
                announce(note)
            for warning in [*setup.warnings(), *_shared_cores(setup), *_short_of_a_profile(setup, request.profile)]:
                warn(warning)
        if request.dry_run:
            run.check(setup, request.folder, request.resume)
            for line in _deviations(setup):
                announce(line)
            announce("dry run: nothing was trained or written")
            return
        summary = run.train(setup, request.folder, request.resume, request.profile)
    if setup.context.is_main:
        _report(summary, request.folder)


def _deviations(setup: Setup) -> list[str]:
    """List where the run departs from the paper or code that its recipe names."""
    reference = reference_of(setup.recipe)
    if reference is None:
        return ["the recipe names no paper or code to be compared with (train.reference)"]
    return deviation_lines(setup.deviations(), reference)


def _suggest_procs(setup: Setup) -> None:
    gpus = torch.cuda.device_count()
    useful = min(gpus, setup.plan.micro_batches)
    if useful > setup.context.local_world_size:
        announce(f"only {setup.context.local_world_size} of {gpus} GPUs in use; for {useful}: --procs {useful}")


def _shared_cores(setup: Setup) -> list[str]:
    """Return a warning if the training processes of this host must share its cores."""
    ranks, cores = setup.context.cores.ranks, max(1, int(setup.context.cores.total))
    if setup.context.device.type != "cpu" or ranks <= cores:
        return []
    return [f"{ranks} processes share the {counted(cores, 'core')} of this host, and so are no faster than {cores}"]


def _short_of_a_profile(setup: Setup, steps: int) -> list[str]:
    """Return a warning if a run is too short for a profile of `steps` steps."""
    needed = steps + WARM_UP_STEPS
    if not steps or setup.total_steps >= needed:
        return []
    return [f"--profile {steps} takes {needed} steps, and the run has {setup.total_steps}: there will be no trace"]


def _report(summary: dict[str, object], folder: RunDir) -> None:
    for name, result in (("final", summary["last"]), ("best", summary["best"])):
        if not isinstance(result, dict):
            continue  # no best.pt: a finished run was resumed after it was deleted
        if ema := result.get("ema"):
            print(
                f"{name:6s}accuracy {result['top1']:.2f} %, ema {ema['top1']:.2f} %; "
                f"top-5 {result['top5']:.2f} %, ema {ema['top5']:.2f} %; epoch {result['epoch']}"
            )
            continue
        epoch = f"epoch {result['epoch']}" + (", ema" if result.get("weights") == "ema" else "")
        print(
            f"{name:6s}accuracy {result['top1']:.2f} %, top-5 accuracy {result['top5']:.2f} % "
            f"({result['top1_correct']} and {result['top5_correct']} of {result['count']}), {epoch}"
        )
    announce(f"run folder: {folder.path}")
