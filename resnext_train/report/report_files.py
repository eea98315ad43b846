"""The files of a report: page, plots, summary.csv. Imports no torch."""

from __future__ import annotations

from pathlib import Path

from resnext_train.errors import InputError
from resnext_train.report.page.html_report import write_html
from resnext_train.report.report_content import Report
from resnext_train.report.tables.summary_csv import SUMMARY_HEAD, summary_csv
from resnext_train.run_dir.result_file import is_stream, refusals_explained, write_result


def write_report(report: Report, out: Path) -> list[Path]:
    """Write the page to `out`, with its plots and summary.csv beside it; return what was written.

    Beside a pipe, a device or what this process prints to, there is no place.

    Raises:
        InputError: a file cannot be written, or there is a summary.csv that no report wrote.
    """
    table = out.with_name("summary.csv")
    if not is_stream(str(out)) and table.is_file() and not _is_summary(table):
        raise InputError(f"--out: {table}, which no report wrote, would be overwritten; name a page in another folder")
    plots = write_html(out, report)
    if is_stream(str(out)):
        return []
    text = summary_csv(report.runs, report.groups)
    write_result(table, "--out", lambda file: file.write(text.encode()))
    return [out, table, *plots]


def _is_summary(file: Path) -> bool:
    """Return whether a file is empty, or a report's table of any version."""
    head = SUMMARY_HEAD.encode()
    with refusals_explained("--out", file), file.open("rb") as opened:
        return opened.read(len(head)) in (b"", head)
