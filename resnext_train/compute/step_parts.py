"""Names for the parts of a step, for whoever counts, times or records them. They cost nothing where nobody does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Literal

Part = Literal["input", "color", "forward", "loss", "backward", "optimizer"]
"""Input is the wait for a micro-batch; backward contains the all-reduce of gradients, which runs beside it."""

Observer = Callable[[Part], AbstractContextManager[object]]
"""Returns a context for a part that begins."""

_NOTHING = nullcontext()
_observer: Observer | None = None


def part(name: Part) -> AbstractContextManager[object]:
    """Return the context of a part of the step."""
    return _NOTHING if _observer is None else _observer(name)


@contextmanager
def observed(observer: Observer) -> Iterator[None]:
    """Let `observer` see the parts of the steps that are taken inside."""
    global _observer
    before, _observer = _observer, observer
    try:
        yield
    finally:
        _observer = before
