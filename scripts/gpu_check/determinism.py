"""Stage E: the same run twice, and once more killed and resumed, has the same bits."""

from __future__ import annotations

from resnext_train.verify.compare_runs import compare_runs
from resnext_train.verify.rank_processes import RankProcesses
from resnext_train.verify.resume_proof import Trial, run_trial
from scripts.gpu_check.report import Host, Report
from scripts.gpu_check.small_run import SMALL

_STEPS, _STEPS_ON_A_CPU = 10, 7
_SEED = 5
"""Decides after which step the proof kills: of ten the fifth, or the next that is logged by then."""


def repeat_and_resume(host: Host, report: Report) -> None:
    """Take ten steps twice, then kill a run after the fifth and resume it, all with `train.deterministic`."""
    processes = host.gpus or 1  # on a CPU, two would only take twice the time
    steps = _STEPS if host.device == "cuda" else _STEPS_ON_A_CPU
    micro_batches = max(2, processes)
    arguments = (
        *("--config", "smoke", *SMALL, "train.precision=auto", f"train.batch_size={16 * micro_batches}"),
        *("train.micro_batch=16", f"data.train_images={16 * micro_batches * steps}", "data.val_images=64"),
        *(f"train.max_steps={steps}", "log.every=1", "checkpoint.every_steps=1", "data.workers=1"),
        "train.deterministic=true",
    )
    trial = Trial(arguments, steps, kills=1, processes=processes, seed=_SEED)
    outcome = run_trial(trial, host.folder, lambda line: print(line, flush=True))
    report.record(ranks=processes, steps=outcome.steps, compared=outcome.compared, killed_after=outcome.killed_after)
    report.record(seconds_from_kill_to_first_step=outcome.restart)
    report.require(not outcome.differences, _sentence("after a kill", outcome.differences))
    report.require(outcome.steps == steps, f"{outcome.steps} steps instead of {steps}")
    if host.device == "cpu":
        report.leave_out("a second run (to save time; the resumed one repeats the first as well)")
        return
    again = host.folder / "again"
    with RankProcesses(arguments, processes, again) as ranks:
        ranks.wait()
    compared, differences = compare_runs(host.folder / "whole", again)
    report.record(compared_with_second_run=compared)
    report.require(not differences, _sentence("in a second run", differences))


def _sentence(when: str, differences: list[str]) -> str:
    return f"{len(differences)} items differ {when}: {'; '.join(differences[:3])}"
