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
from markupsafe import Markup

from resnext_train.errors import printable
from resnext_train.evaluation.wilson import wilson_interval
from resnext_train.report.palette import DARK, LIGHT, variables
from resnext_train.report.report_content import Report
from resnext_train.report.run_curves import best_result, by_accuracy, skipped_steps
from resnext_train.report.run_record import RunRecord
from resnext_train.run_dir.result_file import write_result

if TYPE_CHECKING:
    from resnext_train.report.page_figures import PageFigures

_TEMPLATES = Path(__file__).with_name("page")

PLOTS = "plots"
"""The folder of plots beside NAME.html is NAME_plots."""


@dataclass(frozen=True)
class _Page:
    """What a page is made of beside its report."""

    figures: PageFigures
    plots_folder: str | None
    version: str | None
    """What the page that `--watch` serves is known by; None for a file."""


def write_html(out: Path, report: Report) -> None:
    """Write the page to `out`, and its plots as PNG and SVG to NAME_plots beside it.

    Raises:
        InputError: they cannot be written.
    """
    from resnext_train.report.page_figures import draw_figures  # matplotlib takes half a second, which text needs not
    from resnext_train.report.plots import write_plots

    figures = draw_figures(report.records)
    folder = out.with_name(f"{out.stem}_{PLOTS}")
    text = _render(report, _Page(figures, folder.name, None))
    if figures.plots:
        write_plots(folder, figures.plots)
    write_result(out, "--out", lambda file: file.write(text.encode()))


def live_page(report: Report, version: str) -> str:
    """Return the page that `--watch` serves, which asks its server for newer versions than `version`."""
    from resnext_train.report.page_figures import draw_figures

    return _render(report, _Page(draw_figures(report.records), None, version))


def _render(report: Report, page: _Page) -> str:
    style = _environment().get_template("report.css").render(light=variables(LIGHT), dark=variables(DARK))
    script = (_TEMPLATES / "report.js").read_text(encoding="utf-8")
    return (
        _environment()
        .get_template("report.html")
        .render(
            report=report,
            summary=summary_sentences(report.records),
            figures=page.figures,
            details_left_out=len(report.records) - len(page.figures.details),
            no_skipped=bool(report.records) and not any(skipped_steps(record) for record in report.records),
            run_numbers={printable(record.name): i for i, record in enumerate(report.records)},
            problems=[(record.name, problem) for record in report.records for problem in record.problems],
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


def summary_sentences(records: Sequence[RunRecord]) -> list[str]:
    """Return what a reader wants to know first: how many runs, how they are, and the best accuracy."""
    states = _counted([record.status for record in records])
    count = f"{len(records)} runs" if len(records) != 1 else "One run"
    sentences = [f"{count}: {states}." if states else f"{count}."]
    order = by_accuracy(records)
    best = best_result(records[order[0]]) if order else None
    if best is None:
        return [*sentences, "None was evaluated yet."]
    low, high = wilson_interval(best.correct, best.count)
    run = f"{records[order[0]].name} reached" if len(records) > 1 else "Its best evaluation has"
    when = "" if best.epoch is None else f" after epoch {best.epoch}"
    interval = f"95 % interval {low:.2f} to {high:.2f} %"
    images = f"{best.correct:,} of {best.count:,} images"
    lead = "Best of them, " if len(records) > 1 else ""
    return [*sentences, f"{lead}{run} {best.accuracy:.2f} % top-1 accuracy{when} ({images}; {interval})."]


def _counted(states: Sequence[str]) -> str:
    counts: Mapping[str, int] = {state: states.count(state) for state in dict.fromkeys(states)}
    return ", ".join(f"{n} {state}" if len(states) > 1 else state for state, n in counts.items())
