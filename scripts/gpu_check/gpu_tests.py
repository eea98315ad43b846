"""Stage "tests": the tests of the test suite that need a GPU."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.util import find_spec

from scripts.gpu_check.report import CannotRunHereError, Host, Report
from scripts.gpu_check.runner import ROOT


def run_tests(host: Host, report: Report) -> None:
    """Run the tests that are marked `gpu`."""
    if host.device == "cpu":
        raise CannotRunHereError("it needs a GPU")
    if find_spec("pytest") is None:
        raise CannotRunHereError("pytest is not installed")
    files = sorted(map(str, ROOT.glob("tests/unit/**/test_gpu_*.py")))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "gpu", *files],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        cwd=ROOT,
    )
    print(done.stdout)
    last = (done.stdout.strip().splitlines() or ["no output"])[-1]
    counts = {name: int(number) for number, name in re.findall(r"(\d+) (passed|failed|skipped|error)", last)}
    report.record(**counts)
    report.require(done.returncode == 0, f"pytest ended with exit code {done.returncode}: {last}")
    report.require(counts.get("passed", 0) > 0, f"no test has passed: {last}")
