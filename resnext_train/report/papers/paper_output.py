"""A paper's table beside one's own runs as lines for terminals and as CSV. Imports no torch."""

from __future__ import annotations

from resnext_train.errors import printable
from resnext_train.report.papers.paper_tables import FilledTable
from resnext_train.report.tables.text_report import in_ascii, table_in_ascii, table_lines, width_of, wrapped
from resnext_train.run_dir.result_file import csv_lines


def paper_lines(filled: FilledTable, columns: int = 80, unicode: bool = True) -> list[str]:
    """Return the table in lines of at most `columns` columns, and below it what is left out and what is to be run.

    Commands have a line each, however long, to be copied. Without `unicode` all lines are ASCII.
    """
    table = filled.without_commands()
    width = width_of(columns)
    lines = table_lines(table if unicode else table_in_ascii(table), width)
    if filled.left_out:
        lines += ["", "Left out:"]
        for text in filled.left_out:
            first, *others = wrapped(text if unicode else in_ascii(text), width - 4)
            lines += [f"  {first}", *(f"    {line}" for line in others)]
    if filled.commands:
        lines += ["", "To fill it:", *(f"  {printable(command)}" for command in filled.commands)]
    return lines if unicode else [in_ascii(line) for line in lines]


def paper_csv(filled: FilledTable) -> str:
    """Return a head and a line for each row, with the commands that fill it; a number that is missing is empty."""
    table = filled.as_table()
    numeric = [column.numeric for column in table.columns]
    rows = ([_cell(cell) if of else cell for cell, of in zip(row, numeric, strict=True)] for row in table.rows)
    return csv_lines([[column.name for column in table.columns], *rows])


def _cell(text: str) -> str:
    """Return a number as programs read it."""
    return "" if text == "–" else text.replace("\N{MINUS SIGN}", "-")
