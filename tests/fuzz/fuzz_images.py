"""Feed mutated images and packs to all that reads them, and write down what should not happen.

A child process does the work, and stores each case before it runs it: so what kills or stops it is known, too.
Findings: an exception other than a refusal, a crash, a case that takes too long or too much memory, and a part of an
intact image that is decoded to other pixels than the whole. It needs Linux, for the limits of memory.
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import os
import re
import resource
import shutil
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

SECONDS = 10.0
"""Time that a case may take."""

MEMORY = 2_000_000_000
"""Bytes by which a case may raise the process's peak: a progressive image of 100 million pixels takes 1.4 GB."""

BRAKE = 8_000_000_000
"""Bytes more than at the start that the process may map at all, for the machine's sake."""

KEPT = 3
"""Cases of a kind of finding that are kept."""

ABOUT, CRASH = "case.json", "crash.txt"
"""Where a case is described, and where the child leaves its stack when a signal ends it."""

START = 120.0
"""Seconds in which the child must have imported torch and made the seeds."""


def work(seed: int, first: int, folder: Path, out: Connection) -> None:
    """Run cases from number `first` on, each stored in `folder` before; send target and outcome of each."""
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, sys.stderr.fileno())  # libjpeg and libtiff write a line for much of the damage
    with (folder.parent / CRASH).open("w") as crash:
        faulthandler.enable(crash)
        try:
            _run_cases(seed, first, folder, out)
        except BaseException:
            traceback.print_exc(file=crash)
            raise


def _run_cases(seed: int, first: int, folder: Path, out: Connection) -> None:
    import torch
    from tqdm import tqdm

    from fuzz.targets import Cases, run, store

    torch.set_num_threads(1)
    tqdm.set_lock(threading.RLock())  # its own is a semaphore, which a killed process leaves behind
    cases = Cases(seed)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + BRAKE, used + BRAKE))
    out.send(("ready", ""))
    number = first
    while True:
        case = cases.case(number)
        store(case, number, folder)
        before = _peak()
        try:
            outcome = run(case, folder)
        except Exception as error:
            frame = traceback.extract_tb(error.__traceback__)[-1]
            outcome = f"FINDING {type(error).__name__} in {Path(frame.filename).name}: {error}"
        if (rise := _peak() - before) > MEMORY:
            outcome = f"FINDING memory: the peak rose by {rise:,} bytes"
        out.send((case.target, outcome))
        if outcome.startswith("FINDING"):
            time.sleep(START)  # to be ended: the case must stay on disk, and a new process has a new peak
        number += 1


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


class Findings:
    """Findings by kind, with a few cases of each on disk."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.counts: Counter[str] = Counter()

    def add(self, target: str, what: str, case: Path) -> None:
        kind = re.sub(r"0x[0-9a-f]+|\d+", "N", f"{target}: {what}")[:120]
        self.counts[kind] += 1
        if self.counts[kind] <= KEPT:
            place = self._folder / f"{len(self.counts):03d}-{self.counts[kind]}"
            shutil.copytree(case, place, dirs_exist_ok=True)
            (place / "finding.txt").write_text(f"{target}: {what}\n\n{(case.parent / CRASH).read_text()}")
            print(f"{place}: {target}: {what}", flush=True)


def fuzz(seed: int, cases: range, until: float, findings: Findings, folder: Path) -> Counter[str]:
    """Run `cases` until the clock says `until`; return the counts by target and outcome."""
    counts: Counter[str] = Counter()
    context, number = get_context("forkserver"), cases.start
    context.set_forkserver_preload(["fuzz.targets"])  # a finding ends its process; the next need not import all again
    while number < cases.stop and time.monotonic() < until:
        ours, theirs = context.Pipe(duplex=False)
        child = context.Process(target=work, args=(seed, number, folder, theirs), daemon=True)
        child.start()
        theirs.close()
        try:
            number += _follow(ours, child, cases.stop - number, until, counts, findings, folder)
        finally:
            child.kill()
            child.join()
            ours.close()
    return counts


def _follow(
    ours: Connection,
    child: BaseProcess,
    most: int,
    until: float,
    counts: Counter[str],
    findings: Findings,
    folder: Path,
) -> int:
    """Count what the child sends, until it finds something, `most` cases are done or the time is over.

    Returns the number of cases.

    Raises:
        SystemExit: the child does not start, or fails outside the code under test.
    """
    done, started = 0, False
    while done < most and time.monotonic() < until:
        try:
            limit = SECONDS if started else START
            target, outcome = ours.recv() if ours.poll(limit) else ("", f"FINDING it takes over {SECONDS:.0f} s")
        except EOFError:
            child.join()
            target, outcome = "", f"FINDING signal {-(child.exitcode or 0)} ended the process"
        if target == "ready":
            started = True
            continue
        if not started or (child.exitcode or 0) > 0:
            raise SystemExit(f"the working process failed: {(folder.parent / CRASH).read_text()}")
        target = target or json.loads((folder / ABOUT).read_text())["target"]
        done += 1
        finding = outcome.startswith("FINDING")
        counts[f"{target} {'finding' if finding else outcome}"] += 1
        if finding:
            findings.add(target, outcome.removeprefix("FINDING "), folder)
            break
    return done


def main() -> int:
    """Fuzz for some minutes; return 1 where there are findings."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=20.0, metavar="M", help="how long (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="other seeds make other cases (default: 0)")
    parser.add_argument("--first", type=int, default=0, metavar="N", help="number of the first case (default: 0)")
    parser.add_argument("--cases", type=int, default=10**12, metavar="N", help="how many at most (default: no limit)")
    parser.add_argument(
        "--out", type=Path, default=Path("runs/fuzz"), metavar="FOLDER", help="for findings (default: %(default)s)"
    )
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    findings, began = Findings(args.out), time.monotonic()
    cases = range(args.first, args.first + args.cases)
    with tempfile.TemporaryDirectory(prefix="fuzz-") as name:
        counts = fuzz(args.seed, cases, began + 60 * args.minutes, findings, Path(name) / "case")
    listed = ", ".join(f"{counts[key]:,} {key}" for key in sorted(counts))
    print(
        f"seed {args.seed}: {counts.total():,} cases in {time.monotonic() - began:.0f} s, "
        f"{findings.counts.total():,} findings of {len(findings.counts)} kinds ({listed})"
    )
    return int(findings.counts.total() > 0)


if __name__ == "__main__":
    sys.exit(main())
