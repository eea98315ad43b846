"""A table of a paper beside a user's own runs. Imports no torch."""

from __future__ import annotations

from resnext_train.errors import InputError
from resnext_train.report.paper_table_data import TABLES, PaperTable


def paper_table(name: str) -> PaperTable:
    """Return the table called `name`, as for `--table`.

    Raises:
        InputError: there is none; the message lists all.
    """
    if name in TABLES:
        return TABLES[name]
    known = "; ".join(f"{key} ({table.title})" for key, table in TABLES.items())
    wrong = f"--table: there is no table {name[:60]!r}; choose one of" if name else "--table: name a table, one of"
    raise InputError(f"{wrong} {known}")


def recipes_of(name: str) -> list[str]:
    """Return the recipes of a table's networks, as for `--config`, each once, in the table's order.

    Raises:
        InputError: see `paper_table`.
    """
    return list(dict.fromkeys(row.recipe for row in paper_table(name).rows if row.recipe))
