"""`resnext sweep`: carry out several runs and compare them, or print their command lines."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from resnext_train.cli.console_streams import lose_what_stdout_does_not_take
from resnext_train.cli.run_command import announce, warn
from resnext_train.cli.sweep_requests import SweepRequest
from resnext_train.errors import FaultError
from resnext_train.report.papers.paper_output import paper_lines
from resnext_train.report.papers.paper_tables import fill_table
from resnext_train.report.report_content import build_report
from resnext_train.report.report_files import write_report
from resnext_train.report.tables.text_report import table_lines
from resnext_train.run_dir.run_paths import RunDir
from resnext_train.sweep.run_sweep import run_sweep
from resnext_train.sweep.sweep_plan import is_done

_SHOWN = ("results", "seeds")
"""Keys of the report's tables that are printed."""


def sweep(request: SweepRequest) -> None:
    """Run what is not done, or print it; then compare all runs."""
    if request.only_print:
        waiting = [run for run in request.runs if not is_done(run.folder)]
        for run in waiting:
            announce(run.command())
        if not waiting:
            warn(f"all {len(request.runs)} runs are done; without --print they are compared")
        return
    lose_what_stdout_does_not_take()  # as of `train`: run folders hold all, and a reader who leaves ends no sweep
    result = run_sweep(request.runs, announce)
    _compare([run.folder for run in request.runs], request.out, request.table)
    if result.failed:
        raise FaultError(
            f"{len(result.failed)} of {len(request.runs)} runs failed: {'; '.join(result.failed)}. The same sweep "
            "tries them again"
        )


def _compare(folders: Sequence[RunDir], out: Path, table: str | None) -> None:
    """Print a table of the runs in `folders`, and the paper's `table`; write the report into `out`."""
    begun = [folder.path for folder in folders if folder.recipe.is_file()]
    if not begun:
        return
    made = build_report(begun)
    columns, unicode = shutil.get_terminal_size().columns, "utf" in (sys.stdout.encoding or "").lower()
    lines = [line for one in made.tables if one.key in _SHOWN for line in table_lines(one, columns)]
    if table is not None:
        lines += ["", *paper_lines(fill_table(table, made.records), columns, unicode)]
    for line in lines:
        announce(line)
    for file in write_report(made, out / "report.html"):
        announce(f"written: {file}")
