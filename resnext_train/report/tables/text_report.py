"""A report in lines for terminals. Imports no torch."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from resnext_train.errors import printable
from resnext_train.evaluation.text_table import table_width, text_table, text_width
from resnext_train.report.report_content import Report
from resnext_train.report.run_values import RunValues
from resnext_train.report.tables.sparkline import ASCII, BLOCKS, sparkline
from resnext_train.report.tables.table import Column, Table

_WIDEST = 120
"""Columns that are used of a wide terminal: longer lines are hard to read."""

_CURVE = 40
"""Most columns of a curve."""

_PLAIN = str.maketrans({"–": "-", "±": "+-", "×": "x", "\N{MINUS SIGN}": "-", "…": "..."})
"""What stands for letters that only UTF-8 has."""


def report_lines(report: Report, columns: int = 80, unicode: bool = True) -> list[str]:
    """Return a report's curves and tables in lines of at most `columns` columns, at least 40.

    A table that is wider has a block of lines for each of its rows. Without `unicode` all lines are ASCII.
    """
    width = width_of(columns)
    made = f"{report.made_at:%Y-%m-%d %H:%M} UTC, resnext-train {report.version}"
    lines = [*wrapped(report.title if unicode else in_ascii(report.title), width), *wrapped(made, width)]
    curves = curves_table(report.runs, width, BLOCKS if unicode else ASCII)
    for table in (*filter(None, [curves]), *report.tables):
        lines += ["", *table_lines(table if unicode else table_in_ascii(table), width)]
    return lines if unicode else [in_ascii(line) for line in lines]


def width_of(columns: int) -> int:
    """Return how many columns of a terminal's are used."""
    return min(max(columns, 40), _WIDEST)


def curves_table(runs: Sequence[RunValues], width: int, levels: str) -> Table | None:
    """Return the validation error of each run against its epochs, as a curve in a line; None without evaluations."""
    errors = {run.name: run.errors for run in runs if run.errors}
    if not errors:
        return None
    low, high = min(map(min, errors.values())), max(map(max, errors.values()))
    names = min(max(map(text_width, errors)), width // 3)
    curve = min(_CURVE, width - names - 26)
    caption = (
        f"Error on the validation images after each evaluation, from {low:.2f} % to {high:.2f} % on a logarithmic "
        "scale that all runs share."
    )
    columns = (Column("Run"), Column("Error"), Column("First", True), Column("Lowest", True), Column("Last", True))
    rows = tuple(
        (
            _cut(name, names),
            sparkline(values, curve, low, high, levels),
            *(f"{value:.2f}" for value in (values[0], min(values), values[-1])),
        )
        for name, values in errors.items()
    )
    return Table("curves", "Curves", caption, columns, rows)


def _cut(name: str, width: int) -> str:
    """Return a name's end, which tells runs apart, where it is too long."""
    name = printable(name)
    if text_width(name) <= width:
        return name
    while text_width(name) > width - 3:
        name = name[1:]
    return "..." + name


def table_lines(table: Table, width: int) -> list[str]:
    """Return title, caption and rows: as a table where it fits, else as a block of lines for each row.

    A table fits without its optional columns, too.
    """
    heading = wrapped(table.title, width)
    title = [*heading, "-" * max(map(text_width, heading)), *wrapped(table.caption, width), ""]
    essential = _essential(table)
    lines = _fitting(table, width) or _fitting(essential, width) or _fitting(_with_short_names(essential, width), width)
    if lines is not None:
        return [*title, *lines]
    head = [column.name for column in table.columns]
    return [*title, *(line for row in table.rows for line in _block(head, _shown(row), width))][
        : None if table.rows else -1
    ]


def _shown(row: Sequence[str]) -> tuple[str, ...]:
    return tuple(printable(cell) or "–" for cell in row)


def _essential(table: Table) -> Table:
    """Return a table without its optional columns."""
    kept = [i for i, column in enumerate(table.columns) if not column.optional]
    rows = tuple(tuple(row[i] for i in kept) for row in table.rows)
    return replace(table, columns=tuple(table.columns[i] for i in kept), rows=rows)


def _with_short_names(table: Table, width: int) -> Table:
    """Return a table whose first column, of names, takes at most a quarter of the width."""
    return replace(table, rows=tuple((_cut(row[0], width // 4), *row[1:]) for row in table.rows))


def _fitting(table: Table, width: int) -> list[str] | None:
    """Return a table with its head in one line or in several; None where it is wider than `width`."""
    rows = [_shown(row) for row in table.rows]
    head = [column.name for column in table.columns]
    sides = "".join(">" if column.numeric else "<" for column in table.columns)
    for heads in ([head], _stacked(head)):
        lines = [*heads[1:], *rows]
        if table_width(heads[0], lines) <= width:
            return list(text_table(heads[0], lines, sides, width))
    return None


def _stacked(head: Sequence[str]) -> list[list[str]]:
    """Return a head in several lines, a word in each, the last word in the last."""
    words = [re.split(r" (?=[^%±])", name) for name in head]  # a number and its sign stay together
    height = max(map(len, words))
    return [[(["", *[""] * height, *name][-height:])[i] for name in words] for i in range(height)]


def _block(head: Sequence[str], row: Sequence[str], width: int) -> list[str]:
    """Return the first cell of a row, and below it a line or more for each other cell."""
    head = [_cut(name, width // 2) for name in head]  # of recipes it has the runs' names
    names = max(map(text_width, head)) + 2
    lines = wrapped(row[0], width)
    for name, cell in zip(head[1:], row[1:], strict=True):
        first, *others = wrapped(cell, width - names - 2)
        lines += [f"  {name}{' ' * (names - text_width(name))}{first}", *(" " * (names + 2) + text for text in others)]
    return lines


def wrapped(text: str, width: int) -> list[str]:
    """Return a text in lines of at most `width` columns, broken at spaces, and within words that are longer."""
    lines, line = [], ""
    for word in re.split(r" (?=[^%±])", printable(text).strip()):  # a number and its sign stay together
        joined = f"{line} {word}" if line else word
        if text_width(joined) <= width:
            line = joined
            continue
        if line:
            lines.append(line)
        while text_width(word) > width:
            fitting = next(n for n in range(len(word), 0, -1) if text_width(word[:n]) <= width)
            lines.append(word[:fitting])
            word = word[fitting:]
        line = word
    return [*lines, line]


def table_in_ascii(table: Table) -> Table:
    """Return a table whose texts are ASCII."""
    columns = tuple(replace(column, name=in_ascii(column.name)) for column in table.columns)
    rows = tuple(tuple(in_ascii(cell or "–") for cell in row) for row in table.rows)
    return replace(table, title=in_ascii(table.title), caption=in_ascii(table.caption), columns=columns, rows=rows)


def in_ascii(text: str) -> str:
    """Return a text in ASCII: other signs for those that have some, escapes for the rest."""
    return text.translate(_PLAIN).encode("ascii", "backslashreplace").decode()
