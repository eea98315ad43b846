"""`resnext report`: show runs beside each other."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from resnext_train.cli.paper_table import show_paper_table
from resnext_train.cli.report_requests import ReportRequest
from resnext_train.report.html_report import write_html
from resnext_train.report.report_content import Report, build_report
from resnext_train.report.summary_csv import summary_csv
from resnext_train.report.text_report import report_lines
from resnext_train.report.watch import serve
from resnext_train.run_dir.result_file import is_stream, write_result


def report(request: ReportRequest) -> None:
    """Write the report or the paper's table, and print it or where it is; or serve the report."""
    if request.table is not None:
        show_paper_table(request, request.table)
        return
    if request.port is not None:
        serve(request.paths, request.port)
        return
    made = build_report(request.paths)
    written = [] if request.out is None else _write(made, request.out)
    if request.text:
        columns = shutil.get_terminal_size().columns
        print("\n".join(report_lines(made, columns, unicode="utf" in (sys.stdout.encoding or "").lower())))
    for file in () if request.text else written:
        print(f"written: {file}")


def _write(made: Report, out: Path) -> list[Path]:
    """Write the page to `out`, with its plots and summary.csv beside it; return what was written.

    Beside a pipe, a device or what this process prints to, there is no place.
    """
    plots = write_html(out, made)
    if is_stream(str(out)):
        return []
    table = out.with_name("summary.csv")
    text = summary_csv(made.runs, made.groups)
    write_result(table, "--out", lambda file: file.write(text.encode()))
    return [out, table, *plots]
