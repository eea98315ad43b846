"""Run stages one after another, each in a process group of its own, and write the results as they come.

Imports no torch, so that a broken installation fails stages and not the check.
"""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

from scripts.gpu_check.report import Host

ROOT = Path(__file__).resolve().parents[2]
_MARK = "RESNEXT_GPU_CHECK_STAGE"
"""Environment variable by which all processes that a stage has started are found, whatever group they are in."""

_LEAST = 10.0
"""Seconds that must be left for a stage to begin."""

_TOO_LATE = "never began within the"

Result = dict[str, Any]


@dataclass(frozen=True)
class Stage:
    """A part of the check."""

    name: str
    title: str
    place: str
    """MODULE:FUNCTION; takes a Host and a Report."""
    limits: tuple[float, float]
    """Seconds on a GPU and on a CPU, after which it is killed."""


def run_stages(
    stages: Sequence[Stage],
    device: Literal["cpu", "cuda"],
    gpus: int,
    about: Mapping[str, Any],
    out: Path | None,
    seconds: float = math.inf,
) -> list[Result]:
    """Run `stages` and return their results; write these after each, behind `about`, to the file `out`.

    After `seconds` none is running any more, and no other begins.
    """
    results: list[Result] = []
    _write(out, about, results)
    end = time.monotonic() + seconds
    for stage in stages:
        print(f"{stage.name:6s}{stage.title} ...", flush=True)
        left = end - time.monotonic()
        if left < _LEAST:
            results.append(_skipped(stage, f"{_TOO_LATE} {seconds:g} s of the whole check"))
        else:
            results.append(_run(stage, device, gpus, left))
        _write(out, about, results)
        result = results[-1]
        reason = f": {result['reason']}" if result["reason"] else ""
        print(f"{stage.name:6s}{result['verdict']} in {result['seconds']:.1f} s{reason}", flush=True)
    return results


def exit_code(results: Sequence[Result]) -> int:
    """Return 1 if a stage failed, if none passed, or if one never began for want of time; skipped ones are neither."""
    verdicts = [result["verdict"] for result in results]
    if any(result.get("reason", "").startswith(_TOO_LATE) for result in results):
        return 1
    return 1 if "failed" in verdicts or "passed" not in verdicts else 0


def environment(device: str) -> dict[str, str]:
    """Return the environment of a process that finds this checkout; on a CPU no GPU, and has one thread."""
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    # Several ranks of several threads each would spin for the cores that they lack.
    on_cpu = {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS") or "1"}
    return {**os.environ, "PYTHONPATH": path, **(on_cpu if device == "cpu" else {})}


def _skipped(stage: Stage, reason: str) -> Result:
    return {"name": stage.name, "verdict": "skipped", "reason": reason, "seconds": 0.0, "figures": {}}


def _run(stage: Stage, device: Literal["cpu", "cuda"], gpus: int, left: float) -> Result:
    limit = min(stage.limits[0 if device == "cuda" else 1], left)
    began = time.monotonic()
    with TemporaryDirectory(prefix="gpu-check-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        work = folder / "work"
        work.mkdir()
        host = Host(device, gpus, work, limit)
        (folder / "host.json").write_text(json.dumps({**asdict(host), "folder": str(work)}), encoding="utf-8")
        with (folder / "output.txt").open("w+b") as output:
            code = _wait(stage, folder, device, limit, output)
        seconds = time.monotonic() - began
        verdict, reason, figures = _verdict(folder / "result.json", code, limit)
        if verdict == "failed":
            lines = (folder / "output.txt").read_text(encoding="utf-8", errors="replace").strip().splitlines()
            print("\n".join(f"      | {line}" for line in lines[-30:]), file=sys.stderr, flush=True)
    return {"name": stage.name, "verdict": verdict, "reason": reason, "seconds": seconds, "figures": figures}


def _wait(stage: Stage, folder: Path, device: str, limit: float, output: Any) -> int | None:
    """Return the exit code of the stage's process; None if it ran into its limit. No process of it is left."""
    mark = uuid.uuid4().hex
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "scripts.gpu_check.one_stage", stage.place),
            *(str(folder / "host.json"), str(folder / "result.json")),
        ],
        cwd=ROOT,
        env={**environment(device), _MARK: mark},
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        return process.wait(limit)
    except subprocess.TimeoutExpired:
        return None
    finally:  # also when this process is interrupted
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        _kill_marked(mark)


def _kill_marked(mark: str) -> None:
    """Kill what a stage has left in other sessions: ranks that a launcher or a proof has started."""
    entry = f"{_MARK}={mark}".encode()
    for _ in range(3):  # one that is being started may be missed
        found = False
        for place in Path("/proc").glob("[0-9]*/environ"):  # none on macOS, which then leaves orphans
            with suppress(OSError):
                if entry in place.read_bytes().split(b"\0"):
                    os.kill(int(place.parent.name), signal.SIGKILL)
                    found = True
        if not found:
            return
        time.sleep(0.1)


def _verdict(file: Path, code: int | None, limit: float) -> tuple[str, str, dict[str, Any]]:
    """Return verdict, reason and figures of a stage whose process has ended with `code`, or was killed (None)."""
    written: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    figures = written.get("figures", {})
    so_far = "".join(f"; {fault}" for fault in written.get("faults", []))
    if written.get("verdict") and code == 0:
        return written["verdict"], written["reason"], figures
    if code is None:
        return "failed", f"not done after {limit:g} s, and killed{so_far}", figures
    what = f"was ended by {_signal_name(-code)}" if code < 0 else f"ended with exit code {code}"
    return "failed", f"its process {what} without a verdict{so_far}", figures


def _signal_name(number: int) -> str:
    return next((s.name for s in signal.Signals if s == number), f"signal {number}")


def _write(out: Path | None, about: Mapping[str, Any], results: Sequence[Result]) -> None:
    if out is None:
        return
    new = out.with_name(f"{out.name}.new")
    new.write_text(json.dumps({**about, "stages": results}, indent=1) + "\n", encoding="utf-8")
    new.replace(out)
