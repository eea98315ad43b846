"""`resnext sweep`: carry out several runs, or print their command lines."""

from __future__ import annotations

from resnext_train.cli.run_command import announce
from resnext_train.cli.sweep_requests import SweepRequest
from resnext_train.errors import FaultError
from resnext_train.sweep.run_sweep import is_done, run_sweep


def sweep(request: SweepRequest) -> None:
    """Run what is not done, or print it."""
    if request.only_print:
        for run in request.runs:
            if not is_done(run.folder):
                announce(run.command())
        return
    result = run_sweep(request.runs, announce)
    for failure in result.failed:
        announce(failure)
    if result.failed:
        raise FaultError(f"{len(result.failed)} of {len(request.runs)} runs failed; the same command tries them again")
