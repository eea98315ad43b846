"""Check this checkout on this host: that training on GPUs is right, repeatable, fast, and ends well.

usage, from the root of a checkout: python -m scripts.gpu_check [--out gpu.json] [--device cpu] [--stages A,B,...]

Needs no installation of this package: only torch, torchvision and the libraries that training imports, installed or
on PYTHONPATH. Each stage is a process of its own with a time limit. The file is written as stages end. Exits 1 if a
stage fails, or none passes, or the time is over before all have begun, or no GPU is there, unless `--device cpu` asks
for what a CPU can show. docs/gpu-check.md explains stages and figures.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, NoReturn

from scripts.gpu_check.runner import ROOT, Stage, environment, exit_code, run_stages

LIBRARIES = {
    **{"torch": "torch", "torchvision": "torchvision", "numpy": "numpy", "PIL": "pillow", "pydantic": "pydantic"},
    **{"yaml": "pyyaml", "tqdm": "tqdm", "safetensors": "safetensors"},
}
"""What the stages import, and by which name it is installed."""


_CPU_LIMIT = 240.0
"""Seconds of a stage on a CPU, several times what the longest takes on idle cores."""


def _stage(name: str, title: str, place: str, gpu_limit: float) -> Stage:
    return Stage(name, title, f"scripts.gpu_check.{place}", (gpu_limit, _CPU_LIMIT))


_SECONDS = {"cuda": 480.0, "cpu": 480.0}
"""Of the whole check, after which no stage runs any more."""

STAGES = (
    _stage("A", "environment, copies and all-reduce", "environment:measure_links", 40),
    _stage("B", "parity with the CPU", "parity:compare_with_cpu", 60),
    _stage("C", "skipped steps", "skipped_steps:skip_steps", 60),
    _stage("D", "no waiting for the GPU; launches", "syncs:count_syncs_and_launches", 90),
    _stage("E", "determinism and resuming", "determinism:repeat_and_resume", 120),
    _stage("F", "one step on several worlds", "worlds:compare_worlds", 60),
    _stage("G", "evaluation in training and by command", "worlds:compare_evaluations", 90),
    _stage("H", "compiled steps", "compiled:compare_compiled", 120),
    _stage("J", "training from a JPEG pack", "speed:measure_training", 90),
    _stage("K", "the loss of a process", "lost_rank:kill_a_rank", 90),
    _stage("tests", "the GPU tests of the test suite", "gpu_tests:run_tests", 120),
    _stage("I", "speed beside a bare loop", "speed:measure_steps", 200),  # last: it measures for as long as it may
)


def main(argv: list[str] | None = None) -> int:
    """Run the stages that are asked for, and return the exit code."""
    args = _parser().parse_args(argv)
    if missing := [package for module, package in LIBRARIES.items() if find_spec(module) is None]:
        print(f"gpu_check: missing {', '.join(missing)}; install them or put them on PYTHONPATH", file=sys.stderr)
        return 1
    known = {stage.name: stage for stage in STAGES}
    names = args.stages.split(",") if args.stages else list(known)
    if unknown := [name for name in names if name not in known]:
        print(f"gpu_check: no stage {unknown[0]}; there are {', '.join(known)}", file=sys.stderr)
        return 2
    if args.out and not args.out.absolute().parent.is_dir():
        print(f"gpu_check: the folder of {args.out} does not exist; make it first", file=sys.stderr)
        return 2
    about = _about(args.device)
    device: Literal["cpu", "cuda"] = args.device
    if device == "cuda" and not about.get("gpus"):
        about.setdefault("error", f"{about.get('no_gpu')}; what a CPU can show: --device cpu")
    if "error" in about:
        print(f"gpu_check: {about['error']}", file=sys.stderr)
        return 1
    results = run_stages([known[name] for name in names], device, about["gpus"], about, args.out, _SECONDS[device])
    counts = {v: sum(r["verdict"] == v for r in results) for v in ("passed", "failed", "skipped")}
    print(", ".join(f"{count} {verdict}" for verdict, count in counts.items()) + f" on {about.get('gpu') or device}")
    return exit_code(results)


def _parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        prog="gpu_check", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("--out", type=Path, metavar="FILE", help="write all results to this JSON file")
    p.add_argument("--device", choices=["cpu", "cuda"], default="cuda", help="default: cuda, all GPUs of this host")
    p.add_argument("--stages", metavar="A,B,...", help=f"default: all of {','.join(s.name for s in STAGES)}")
    return p


def _about(device: str) -> dict[str, Any]:
    """Describe this host, by a process of its own: asking for a GPU's name takes memory of it."""
    command = [sys.executable, "-m", "scripts.gpu_check.environment"]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, cwd=ROOT, env=environment(device), timeout=60
        )
    except subprocess.TimeoutExpired:
        return {"error": "torch or the driver does not answer"}
    if done.returncode:
        return {"error": (done.stderr.strip().splitlines() or ["torch cannot be imported"])[-1]}
    described: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return described


def _end(number: int, frame: object) -> NoReturn:
    raise SystemExit(128 + number)  # by way of what kills the running stage


if __name__ == "__main__":
    for ending in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(ending, _end)
    raise SystemExit(main())
