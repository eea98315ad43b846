"""`resnext verify`: prove that a recipe resumes exactly on this machine."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import torch

from resnext_train.cli.requests import VerifyRequest
from resnext_train.errors import FaultError
from resnext_train.verify.resume_proof import run_trial

_DETERMINISTIC = "train.deterministic="


def verify(request: VerifyRequest) -> None:
    """Run both trials, and print whether they are equal."""
    trial = request.trial
    if torch.cuda.is_available() and not any(word.startswith(_DETERMINISTIC) for word in trial.arguments):
        trial = replace(trial, arguments=(*trial.arguments, f"{_DETERMINISTIC}true"))
        print(f"both runs have {_DETERMINISTIC}true, without which a GPU need not give the same bits twice", flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        folder = request.out or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        outcome = run_trial(trial, folder, lambda line: print(line, flush=True))
    kills = len(outcome.killed_after)
    if outcome.restart is not None:
        print(f"from a kill to the first step after it: {outcome.restart:.1f} s (median)")
    if outcome.differences:
        first = "; ".join(outcome.differences[:3])
        raise FaultError(
            f"{len(outcome.differences)} of {outcome.compared} tensors, values and logged events differ after {kills} "
            f"kills: {first}"
        )
    procs = trial.processes
    print(
        f"equal: all {outcome.compared} tensors, values and logged events of {outcome.steps} steps on {procs} "
        f"process{'es' * (procs > 1)}, after {kills} kill{'s' * (kills > 1)}"
    )
