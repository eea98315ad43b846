"""What `resnext report` is asked for, read and checked."""

from __future__ import annotations

from argparse import Namespace
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from resnext_train.cli.requests import check_output
from resnext_train.errors import InputError
from resnext_train.regular_file import user_path
from resnext_train.report.papers.paper_tables import paper_table
from resnext_train.report.run_record import find_runs
from resnext_train.run_dir.result_file import is_stream

_RUNS = "runs"
"""The folder of all runs, where none is named."""

_MOST_PORT = 65535


@dataclass(frozen=True)
class ReportRequest:
    """A report to make."""

    paths: tuple[str, ...]
    """Run folders, and folders that hold some."""
    out: Path | None
    """The page to write, beside which summary.csv is; None: nothing is written."""
    text: bool
    """Whether to print the report."""
    port: int | None = None
    """Where to serve the report; None: not at all."""
    pictures: bool = True
    """Whether the page shows images of the data."""
    table: str | None = None
    """A paper's table to show instead, by its name; None: none."""


def read_report(args: Namespace) -> ReportRequest:
    """Check that there are runs, and that the report can be written."""
    _check_watch(args)
    if args.table is not None:
        return _read_table(args)
    if not args.paths and not Path(_RUNS).is_dir():
        raise InputError("name a run folder, or one that holds some, as in `resnext report runs/resnet20`")
    paths = tuple(str(user_path(path)) for path in args.paths or [_RUNS])
    find_runs(paths)
    if args.watch:
        return ReportRequest(paths, None, False, port=args.port, pictures=not args.no_pictures)
    out = None if args.text and args.out is None else user_path(args.out) if args.out else _default_out(paths)
    check_output("--out", None if out is None else str(out))
    if out is not None and out.suffix.lower() not in (".html", ".htm") and not is_stream(str(out)):
        raise InputError(f"--out: {out} is the page, beside which its plots and summary.csv are; name a .html file")
    return ReportRequest(paths, out, args.text, pictures=not args.no_pictures)


def _check_watch(args: Namespace) -> None:
    if args.watch and (args.text or args.out is not None or args.table is not None):
        raise InputError("--watch serves the page and writes nothing; leave out --text, --out and --table")
    if not 0 <= args.port <= _MOST_PORT:
        raise InputError(f"--port {args.port}: must be from 0 to {_MOST_PORT}")


def _read_table(args: Namespace) -> ReportRequest:
    """Check the table's name and the file; there need not be a run, for the table says how to make them."""
    paper_table(args.table)
    paths = tuple(str(user_path(path)) for path in args.paths)
    if paths:
        find_runs(paths)
    elif Path(_RUNS).is_dir():
        with suppress(InputError):  # it holds none
            find_runs([_RUNS])
            paths = (_RUNS,)
    out = None if args.out is None else user_path(args.out)
    if out is not None and out.suffix.lower() not in (".csv", ".html"):
        raise InputError(f"--out: {out} should end in .csv or .html")
    check_output("--out", None if out is None else str(out))
    return ReportRequest(paths, out, args.text or out is None, pictures=not args.no_pictures, table=args.table)


def _default_out(paths: tuple[str, ...]) -> Path:
    folder = Path(paths[0]) if len(paths) == 1 else Path()
    return folder / "report.html"
