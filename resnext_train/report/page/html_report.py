"""A report as one HTML page that needs no network, and its plots as files beside it."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from resnext_train.errors import printable
from resnext_train.report.page.palette import DARK, LIGHT, variables
from resnext_train.report.page.run_curves import by_accuracy, skipped_steps
from resnext_train.report.report_content import Report
from resnext_train.report.run_values import RunValues
from resnext_train.run_dir.result_file import is_stream, write_result

if TYPE_CHECKING:
    from resnext_train.report.page.page_figures import PageFigures

_TEMPLATES = Path(__file__).with_name("templates")

_LATER = ("published", "deviations", "runs", "differences", "problems")
"""Keys of the tables that stand behind the curves."""

PLOTS = "plots"
"""The folder of plots beside NAME.html is NAME_plots."""


@dataclass(frozen=True)
class _Page:
    """What a page is made of beside its report."""

    figures: PageFigures
    plots_folder: str | None
    version: str | None
    """What the page that `--watch` serves is known by; None for a file."""


def write_html(out: Path, report: Report) -> list[Path]:
    """Write the page to `out`, and its plots as PNG and SVG to the folder NAME_plots beside it; return that, if any.

    Raises:
        InputError: they cannot be written.
    """
    from resnext_train.report.page.page_figures import (
        draw_figures,  # matplotlib takes half a second, which text needs not
    )
    from resnext_train.report.page.plots import write_plots

    figures = draw_figures(_runs(report), report.pictures)
    folders = [out.with_name(f"{out.stem}_{PLOTS}")] if figures.plots and not is_stream(str(out)) else []
    for folder in folders:
        write_plots(folder, figures.plots)
    text = _render(report, _Page(figures, folders[0].name if folders else None, None))
    write_result(out, "--out", lambda file: file.write(text.encode()))
    return folders


def live_page(report: Report, version: str) -> str:
    """Return the page that `--watch` serves, which asks its server for newer versions than `version`."""
    from resnext_train.report.page.page_figures import draw_figures

    return _render(report, _Page(draw_figures(_runs(report), report.pictures), None, version))


def _runs(report: Report) -> tuple[RunValues, ...]:
    return report.runs or tuple(map(RunValues, report.records))


def _render(report: Report, page: _Page) -> str:
    style = _environment().get_template("report.css").render(light=variables(LIGHT), dark=variables(DARK))
    script = (_TEMPLATES / "report.js").read_text(encoding="utf-8")
    runs = _runs(report)
    order = by_accuracy(runs) if page.figures.has_ranks else range(len(runs))
    return (
        _environment()
        .get_template("report.html")
        .render(
            report=report,
            summary=summary_sentences(runs),
            figures=page.figures,
            later=[table for table in report.tables if table.key in _LATER],
            sooner=[table for table in report.tables if table.key not in _LATER],
            picks=[(i, runs[i].name) for i in order],
            no_skipped=not any(skipped_steps(run.record) for run in runs),
            run_numbers={printable(run.name): i for i, run in enumerate(runs)},
            plots_folder=page.plots_folder,
            version=page.version,
            style=Markup(style),
            script=Markup(script),
            policy=_policy(style, script, is_live=page.version is not None),
        )
    )


@lru_cache(maxsize=1)
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_safe_text,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["printable"] = printable
    environment.filters["unbroken"] = lambda text: Markup(escape(printable(text)).replace(" %", "\u00a0%"))
    return environment


def _safe_text(value: Any) -> Any:
    """Return text without what UTF-8 does not have, and without characters that control a terminal or the text's order.

    Names of runs and classes are names of folders, which may hold any bytes.
    """
    return printable(value) if type(value) is str else value


def _policy(style: str, script: str, is_live: bool) -> str:
    """Return the page's content security policy: its own style and script, embedded pictures, and no network."""
    hashes = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in (style, script)]
    parts = {
        "default-src": "'none'",
        "style-src": f"'sha256-{hashes[0]}'",
        "script-src": f"'sha256-{hashes[1]}'",
        "img-src": "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    if is_live:
        parts["connect-src"] = "'self'"
    return "; ".join(f"{name} {source}" for name, source in parts.items())


def summary_sentences(runs: Sequence[RunValues]) -> list[str]:
    """Return what a reader wants to know first: how many runs, how they are, and the best accuracy."""
    states = _counted([run.status for run in runs])
    sentences = [f"{len(runs)} runs: {states}." if len(runs) != 1 else f"The run is {states}."]
    best = max((run for run in runs if run.best), key=lambda run: run.best.accuracy if run.best else 0.0, default=None)
    if best is None or best.best is None:
        return [*sentences, "Nothing was evaluated yet."]
    result = best.best
    low, high = result.interval
    of = f"The best accuracy is {result.accuracy:.2f} % top-1, 95 % interval {low:.2f} to {high:.2f} %"
    by = f", by {best.name}" if len(runs) > 1 else ""
    when = "" if result.epoch is None else f" after epoch {result.epoch}"
    return [*sentences, f"{of}{by}{when} ({result.top1_correct:,} of {result.count:,} images)."]


def _counted(states: Sequence[str]) -> str:
    counts: Mapping[str, int] = {state: states.count(state) for state in dict.fromkeys(states)}
    return ", ".join(f"{n} {state}" if len(states) > 1 else state for state, n in counts.items())
