"""The proof of exact resuming on a GPU: both runs take deterministic algorithms."""

from __future__ import annotations

import pytest
import torch

from helpers.commands import verify
from helpers.runs import SMALL
from resnext_train.cli import verify as command
from resnext_train.verify.resume_proof import Outcome, Trial

DETERMINISTIC = "train.deterministic="


@pytest.mark.parametrize(
    ("gpu", "override", "taken"),
    [(True, None, "true"), (True, "false", "false"), (False, None, None)],
)
def test_on_a_gpu_both_runs_are_deterministic(
    gpu: bool,
    override: str | None,
    taken: str | None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    trials: list[Trial] = []

    def run_trial(trial: Trial, *_: object) -> Outcome:
        trials.append(trial)
        return Outcome(1.0, steps=3)

    monkeypatch.setattr(command, "run_trial", run_trial)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    given = [] if override is None else [f"{DETERMINISTIC}{override}"]
    assert verify(["--config", "smoke.yaml", "--steps", "3", *SMALL, *given]) == 0
    set_to = [word.removeprefix(DETERMINISTIC) for word in trials[0].arguments if word.startswith(DETERMINISTIC)]
    assert set_to == ([] if taken is None else [taken])
    assert (f"{DETERMINISTIC}true" in capsys.readouterr().out) == (gpu and override is None)
