"""Stage K: where a process is killed, the others end soon and say which it was."""

from __future__ import annotations

import time

from resnext_train.verify.rank_processes import RankProcesses
from scripts.gpu_check.report import CannotRunHereError, Host, Report
from scripts.gpu_check.small_run import SMALL

_LIMIT = 45.0
"""Seconds in which the others end."""


def kill_a_rank(host: Host, report: Report) -> None:
    """Kill the last rank of a run by SIGKILL, and watch the others."""
    if host.ranks < 2:
        raise CannotRunHereError("it needs two GPUs")
    arguments = (
        *("--config", "smoke", *SMALL, "train.precision=auto", f"train.batch_size={16 * host.ranks}"),
        *("train.micro_batch=16", f"data.train_images={160 * host.ranks}", "data.val_images=64"),
        *("train.epochs=1000", "eval.every_epochs=1000", "log.every=1"),
    )
    killed = host.ranks - 1
    with RankProcesses(arguments, host.ranks, host.folder / "run") as ranks:
        ranks.watch(5)
        if ranks.ended():
            ranks.wait()
        ranks.kill_rank(killed)
        began = time.monotonic()
        codes = ranks.codes_within(_LIMIT + 5)
        seconds = time.monotonic() - began
        output = ranks.output()
    named = f"process {killed} of {host.ranks}" in output
    report.record(ranks=host.ranks, killed=killed, exit_codes=codes, named=named)
    report.at_most("seconds_until_the_others_ended", seconds, _LIMIT)
    report.require(None not in codes, f"still running: ranks {[r for r, code in enumerate(codes) if code is None]}")
    report.require(
        0 not in codes, f"ranks {[r for r, code in enumerate(codes) if code == 0]} ended as if all were well"
    )
    if not named:
        print(output)
    report.require(named, f"no process says that process {killed} of {host.ranks} is gone")
