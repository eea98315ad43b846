"""Deviations as lines of text. Imports no torch."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from resnext_train.config.fidelity.compare import Deviation
from resnext_train.config.fidelity.references import Reference

_COLUMNS = 80
_LABEL = 26
"""Columns for the names of points; a longer one has a line of its own."""


def deviation_lines(found: Sequence[Deviation], reference: Reference) -> list[str]:
    """Return a title, each deviation with both values and the source of theirs, and what no comparison computes."""
    indent = " " * (_LABEL + 2)
    lines = [f"deviations from {reference.title} ({len(found) or 'none known'}){':' if found else ''}"]
    for deviation in found:
        label = f"  {deviation.label}"
        if len(label) > len(indent) - 2:
            lines.append(label)
            label = ""
        first = label.ljust(len(indent))
        lines += textwrap.wrap(sentence(deviation), _COLUMNS, initial_indent=first, subsequent_indent=indent)
    if reference.notes:
        lines.append("what no comparison can tell:")
        for note in reference.notes:
            lines += textwrap.wrap(note, _COLUMNS, initial_indent="  ", subsequent_indent="  ")
    return lines


def counted(found: Sequence[Deviation], reference: Reference) -> str:
    """Return how many deviations there are, and from what."""
    return f"{len(found) or 'no known'} deviation{'' if len(found) == 1 else 's'} from {reference.title}"


def sentence(deviation: Deviation) -> str:
    """Return both values, the source of theirs, and what is known of the difference."""
    effect = f"; {deviation.effect}" if deviation.effect else ""
    return f"here: {deviation.ours}; there: {deviation.theirs} ({deviation.source}){effect}"
