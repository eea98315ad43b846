"""What a stage of the check is given, and what it reports. Imports no torch."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

Verdict = Literal["passed", "failed", "skipped"]


@dataclass(frozen=True)
class Host:
    """Where a stage runs."""

    device: Literal["cpu", "cuda"]
    gpus: int
    """GPUs of this host; 0 on a CPU."""
    folder: Path
    """A folder of the stage's own, which is removed after it."""
    seconds: float
    """Time limit of the stage, after which it is killed."""

    @property
    def ranks(self) -> int:
        """Processes of a stage that needs all GPUs; on a CPU, two."""
        return self.gpus or 2


class CannotRunHereError(Exception):
    """The stage cannot run on this host, for the reason given."""


class Report:
    """The figures and the verdict of a stage, in a file that is up to date at all times."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._figures: dict[str, Any] = {}
        self._left_out: list[str] = []
        self._faults: list[str] = []

    def record(self, **figures: Any) -> None:
        """Note measurements by name: plain values that JSON can hold."""
        self._figures |= {name: _plain(value) for name, value in figures.items()}
        self._write(None, "")

    def require(self, holds: bool, otherwise: str) -> None:
        """Let the stage fail with the sentence `otherwise` unless `holds`; the rest of it is still checked."""
        if not holds:
            self._faults.append(otherwise)
            self._write(None, "")

    def at_most(self, name: str, value: float, limit: float) -> None:
        """Record a measurement, and let the stage fail if it is over `limit` or not a number."""
        self.record(**{name: value})
        self.require(value <= limit, f"{name} is {value:.3g}, over {limit:g}")

    def at_least(self, name: str, value: float, limit: float) -> None:
        """Record a measurement, and let the stage fail if it is under `limit` or not a number."""
        self.record(**{name: value})
        self.require(value >= limit, f"{name} is {value:.6g}, under {limit:g}")

    def leave_out(self, part: str) -> None:
        """Note a part of the stage that cannot run here, and why."""
        self._left_out.append(part)

    def finish(self, skipped: str | None = None, crashed: str | None = None) -> None:
        """Write the verdict. Where nothing was recorded or required, nothing has passed."""
        if crashed:
            self._faults.append(crashed)
        if self._faults:
            self._write("failed", "; ".join(self._faults))
        elif skipped:
            self._write("skipped", skipped)
        elif not self._figures:
            self._write("failed", "the stage has checked nothing")
        else:
            self._write("passed", "; ".join(f"without {part}" for part in self._left_out))

    def _write(self, verdict: Verdict | None, reason: str) -> None:
        text = json.dumps({"verdict": verdict, "reason": reason, "faults": self._faults, "figures": self._figures})
        new = self._path.with_suffix(".new")
        new.write_text(text, encoding="utf-8")
        new.replace(self._path)


def _plain(value: Any) -> Any:
    """Return `value` with numbers that JSON lacks (NaN, infinity) as text."""
    if isinstance(value, float) and not math.isfinite(value):
        return repr(value)
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    return value
