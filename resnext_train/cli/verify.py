"""`resnext verify`: prove that a recipe resumes exactly on this machine."""

from __future__ import annotations

import tempfile
from pathlib import Path

from resnext_train.cli.requests import VerifyRequest
from resnext_train.errors import FaultError
from resnext_train.verify.resume_proof import run_trial


def verify(request: VerifyRequest) -> None:
    """Run both trials, and print whether they are equal."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = request.out or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        outcome = run_trial(request.trial, folder, lambda line: print(line, flush=True))
    kills = len(outcome.killed_after)
    if outcome.restart is not None:
        print(f"from a kill to the first step after it: {outcome.restart:.1f} s (median)")
    if outcome.differences:
        first = "; ".join(outcome.differences[:3])
        raise FaultError(
            f"{len(outcome.differences)} of {outcome.compared} tensors, values and logged events differ after {kills} "
            f"kills: {first}"
        )
    procs = request.trial.processes
    print(
        f"equal: all {outcome.compared} tensors, values and logged events of {outcome.steps} steps on {procs} "
        f"process{'es' * (procs > 1)}, after {kills} kill{'s' * (kills > 1)}"
    )
