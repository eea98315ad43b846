"""Run `resnext bench scaling`: the same step on one process and on more, each time by `resnext bench step`."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from resnext_train.errors import FaultError, InputError

_ERROR = "resnext bench step: error: "

Result = dict[str, Any]
"""All measurements, as `--json` writes them, by number of processes as text:

measured     as of `bench step`
rates        images/s over all processes, of our step and of the bare loop
efficiency   our median images/s over that of one process times their number
step_ms, ms  of a step, and by part; see `bench step`
"""


def measure_scaling(arguments: Sequence[str], procs: Sequence[int]) -> Result:
    """Measure `resnext bench step ARGUMENTS` on each number of processes in `procs`, which has 1.

    Raises:
        InputError: one of them was refused.
        FaultError: one of them failed.
    """
    by_procs = {str(n): _measured(arguments, n) for n in procs}
    one = by_procs["1"]["rates"]["step"]["median"]
    rates = {n: result["rates"] for n, result in by_procs.items()}
    return {
        "measured": {n: result["measured"] for n, result in by_procs.items()},
        "rates": rates,
        "efficiency": {n: of["step"]["median"] / (one * int(n)) for n, of in rates.items()},
        "step_ms": {n: result["step_ms"] for n, result in by_procs.items()},
        "ms": {n: result["ms"] for n, result in by_procs.items()},
    }


def _measured(arguments: Sequence[str], procs: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="resnext-bench-") as scratch:
        file = Path(scratch) / "step.json"
        done = subprocess.run(
            [
                *(sys.executable, "-m", "resnext_train", "bench", "step", *arguments),
                *("--procs", str(procs), "--json", str(file)),
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            check=False,
        )
        if done.returncode:
            text = f"on {procs} process{'es' * (procs > 1)}: {_reason(done.stderr)}"
            raise InputError(text) if done.returncode == 2 else FaultError(text)
        result: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        return result


def _reason(stderr: str) -> str:
    """Return the sentence of `bench step`, which libraries may follow with lines of their own; else the last line."""
    lines = stderr.strip().splitlines() or ["no reason given"]
    sentences = [line for line in lines if line.startswith(_ERROR)]
    return sentences[-1].removeprefix(_ERROR) if sentences else lines[-1]
