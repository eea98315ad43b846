"""Plant faults in copies of the checkout, one fault in each, and see that the test-suite catches every one."""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
FAULTS = Path(__file__).parent / "faults"
LIMIT = 500.0
"""Seconds that one run of tests may take."""

CRASH = re.compile(r"^E +(NameError|AttributeError|ImportError|UnboundLocalError|SyntaxError): .*", re.MULTILINE)
"""What a fault that was not adapted to renamed code ends in. A fault must compute wrongly instead."""


@dataclass(frozen=True)
class Fault:
    """A slip: in `file`, `search` becomes `replace`, which the `tests` (FILE or FILE::TEST) must notice."""

    name: str
    what: str
    file: str
    search: str
    replace: str
    tests: tuple[str, ...]


@dataclass(frozen=True)
class Verdict:
    """What became of a fault: caught, SURVIVED or an error, and the first test that failed, or why it is an error."""

    kind: str
    why: str
    seconds: float = 0.0


def read_fault(path: Path) -> Fault:
    """Read the fault that a file describes."""
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    tests = content.pop("test")
    return Fault(name=path.stem, tests=tuple(tests) if isinstance(tests, list) else (tests,), **content)


def copy_checkout(target: Path) -> None:
    """Copy all files that git would take to `target`, and see that Python imports the package from there."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout
    for name in filter(None, os.fsdecode(listed).split("\0")):
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)
    code = "import resnext_train; print(resnext_train.__file__)"
    done = subprocess.run(
        [sys.executable, "-B", "-c", code], cwd=target.parent, env=environment(target), capture_output=True, check=True
    )
    found = Path(os.fsdecode(done.stdout).strip()).resolve()
    if target.resolve() not in found.parents:
        raise SystemExit(f"the tests would import {found}, not the copy in {target}")


def environment(copy: Path) -> dict[str, str]:
    """Return what a process needs to run the copy of the checkout in `copy`."""
    return {**os.environ, "PYTHONPATH": str(copy), "OMP_NUM_THREADS": "1"}


def plant(fault: Fault, copy: Path) -> str:
    """Apply `fault` to the checkout in `copy`; return why it does not apply, or ""."""
    path = copy / fault.file
    names = [fault.file, *(test.partition("::")[0] for test in fault.tests)]
    if missing := [name for name in names if not (copy / name).is_file()]:
        return f"does not apply: there is no {missing[0]}"
    text = path.read_text(encoding="utf-8")
    if (count := text.count(fault.search)) != 1:
        return f"does not apply: `search` occurs {count} times in {fault.file}"
    path.write_text(text.replace(fault.search, fault.replace), encoding="utf-8")
    return ""


def run_tests(tests: Iterable[str], copy: Path) -> tuple[int | None, str]:
    """Run `tests` in `copy` up to the first failure, and remove it; return pytest's exit code and output.

    The code is None where they took longer than LIMIT.
    """
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", f"--basetemp={copy}/tmp", *tests]
    with copy.with_suffix(".txt").open("w+") as output:
        process = subprocess.Popen(
            command, cwd=copy, env=environment(copy), stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            code = process.wait(LIMIT)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # the tests, and what a failed one has left running
            process.wait()
            shutil.rmtree(copy, ignore_errors=True)
        output.seek(0)
        return code, output.read()


def judge(fault: Fault, checkout: Path, folder: Path) -> Verdict:
    """Plant `fault` in a copy of `checkout` below `folder`, and run its tests there."""
    copy = folder / fault.name
    shutil.copytree(checkout, copy)
    if why := plant(fault, copy):
        return Verdict("ERROR", why)
    began = time.monotonic()
    code, text = run_tests(fault.tests, copy)
    seconds = time.monotonic() - began
    if code is None:
        return Verdict("ERROR", "timed out", seconds)
    if code == 0:
        return Verdict("SURVIVED", f"{' '.join(fault.tests)} passed", seconds)
    if crash := CRASH.search(text):
        return Verdict("ERROR", f"the fault crashes instead of computing wrongly: {crash[0]}", seconds)
    failed = re.search(r"^FAILED (\S+::.+?)(?: - .*)?$", text, re.MULTILINE)
    if code != 1 or not failed:
        return Verdict("ERROR", f"pytest ended with code {code}: {text.strip()[-300:]}", seconds)
    return Verdict("caught", failed[1], seconds)


def check_unplanted(faults: Iterable[Fault], checkout: Path, folder: Path) -> Verdict:
    """Run the tests of all faults without a fault: they must pass, or their failing proves nothing."""
    copy, began = folder / "unplanted", time.monotonic()
    shutil.copytree(checkout, copy)
    code, text = run_tests(sorted({test for fault in faults for test in fault.tests}), copy)
    seconds = time.monotonic() - began
    return Verdict("passed", "", seconds) if code == 0 else Verdict("ERROR", text.strip()[-300:], seconds)


def main() -> int:
    """Judge the faults that the command line names, or all; return 1 where one is not caught."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="faults to plant (default: all)")
    parser.add_argument("--jobs", type=int, default=cores, metavar="N", help="faults at a time (default: %(default)s)")
    parser.add_argument("--list", action="store_true", help="say what the faults are, and plant none")
    args = parser.parse_args()
    faults = {path.stem: read_fault(path) for path in sorted(FAULTS.glob("*.yaml"))}
    if unknown := [name for name in args.names if name not in faults]:
        parser.error(f"no fault {unknown[0]}; --list shows all")
    chosen = [faults[name] for name in args.names or faults]
    if args.list:
        for fault in chosen:
            print(f"{fault.name:28} {fault.what}")
        return 0
    chosen.sort(key=lambda fault: "::" not in fault.tests[0])  # whole runs, which take longest, come first
    began, bad = time.monotonic(), 0
    with tempfile.TemporaryDirectory(prefix="mutation-") as name, ThreadPoolExecutor(args.jobs) as pool:
        folder = Path(name)
        copy_checkout(folder / "checkout")
        jobs = {pool.submit(check_unplanted, chosen, folder / "checkout", folder): "(no fault)"}
        jobs |= {pool.submit(judge, fault, folder / "checkout", folder): fault.name for fault in chosen}
        caught = 0
        for job in as_completed(jobs):
            verdict = job.result()
            caught += verdict.kind == "caught"
            bad += verdict.kind not in ("caught", "passed")
            print(f"{verdict.kind:8} {jobs[job]:28} {verdict.seconds:5.1f} s  {verdict.why}", flush=True)
    print(f"{caught} of {len(chosen)} faults caught in {time.monotonic() - began:.0f} s")
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
