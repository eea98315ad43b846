"""The files of a report: page, plots, summary.csv. Imports no torch."""

from __future__ import annotations

from pathlib import Path

from resnext_train.report.page.html_report import write_html
from resnext_train.report.report_content import Report
from resnext_train.report.tables.summary_csv import summary_csv
from resnext_train.run_dir.result_file import is_stream, write_result


def write_report(report: Report, out: Path) -> list[Path]:
    """Write the page to `out`, with its plots and summary.csv beside it; return what was written.

    Beside a pipe, a device or what this process prints to, there is no place.

    Raises:
        InputError: a file cannot be written.
    """
    plots = write_html(out, report)
    if is_stream(str(out)):
        return []
    table = out.with_name("summary.csv")
    text = summary_csv(report.runs, report.groups)
    write_result(table, "--out", lambda file: file.write(text.encode()))
    return [out, table, *plots]
