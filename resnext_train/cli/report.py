"""`resnext report`: show runs beside each other."""

from __future__ import annotations

import shutil
import sys

from resnext_train.cli.paper_table import show_paper_table
from resnext_train.cli.report_requests import ReportRequest
from resnext_train.errors import printable
from resnext_train.report.page.watch import serve
from resnext_train.report.report_content import build_report
from resnext_train.report.report_files import write_report
from resnext_train.report.tables.text_report import report_lines


def report(request: ReportRequest) -> None:
    """Write the report or the paper's table, and print it or where it is; or serve the report."""
    if request.table is not None:
        show_paper_table(request, request.table)
        return
    if request.port is not None:
        serve(request.paths, request.port, request.pictures)
        return
    made = build_report(request.paths, request.pictures)
    written = [] if request.out is None else write_report(made, request.out)
    if request.text:
        columns = shutil.get_terminal_size().columns
        print("\n".join(report_lines(made, columns, unicode="utf" in (sys.stdout.encoding or "").lower())))
    for file in () if request.text else written:
        print(f"written: {printable(str(file))}")
