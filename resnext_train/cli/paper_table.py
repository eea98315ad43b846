"""`resnext report --table`: a paper's table beside one's own runs."""

from __future__ import annotations

import shutil
import sys
from datetime import datetime, timezone
from pathlib import Path

from resnext_train import __version__
from resnext_train.cli.report_requests import ReportRequest
from resnext_train.errors import printable
from resnext_train.report.page.html_report import write_html
from resnext_train.report.papers.paper_output import paper_csv, paper_lines
from resnext_train.report.papers.paper_tables import FilledTable, fill_table
from resnext_train.report.report_content import Report
from resnext_train.report.run_record import read_runs
from resnext_train.run_dir.result_file import write_result


def show_paper_table(request: ReportRequest, name: str) -> None:
    """Write the table called `name` to the request's file, and print it or where it is."""
    filled = fill_table(name, read_runs(request.paths) if request.paths else [])
    if request.out is not None:
        _write(filled, request.out, request.pictures)
    if request.text:
        columns = shutil.get_terminal_size().columns
        print("\n".join(paper_lines(filled, columns, unicode="utf" in (sys.stdout.encoding or "").lower())))
    else:
        print(f"written: {printable(str(request.out))}")


def _write(filled: FilledTable, out: Path, pictures: bool) -> None:
    if out.suffix.lower() == ".csv":
        text = paper_csv(filled)
        write_result(out, "--out", lambda file: file.write(text.encode()))
        return
    made_at = datetime.now(timezone.utc)
    tables = (filled.as_table(),)
    write_html(out, Report(filled.table.title, filled.runs, tables, made_at, __version__, pictures=pictures))
