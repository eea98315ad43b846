"""A fixed few hundred of the cases that `make fuzz` makes, and what it does about findings."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch

from fuzz import seeds, targets
from fuzz.mutations import signed
from fuzz.targets import Case, Cases, run, store
from resnext_train.data.decode import lazy_image
from resnext_train.data.decode.restart_markers import RestartSegments

ROOT = Path(__file__).resolve().parents[2]


def outcomes(first: int, last: int, folder: Path) -> Counter[tuple[str, str]]:
    """Count the cases by target and outcome; a finding is an exception."""
    torch.set_num_threads(1)
    cases, counts = Cases(0), Counter[tuple[str, str]]()
    for number in range(first, last):
        case = cases.case(number)
        store(case, number, folder)
        try:
            counts[case.target, run(case, folder)] += 1
        except Exception as error:
            raise AssertionError(f"case {number}, {case.target} of {case.seed}: {error!r}") from error
    return counts


def test_a_few_hundred_cases_have_no_finding(tmp_path: Path) -> None:
    counts = outcomes(0, 500, tmp_path / "case")
    assert {target for target, _ in counts} == {*targets.WEIGHTS, "same pixels"}
    assert counts["same pixels", "read"] > 60, "all seeds unchanged"
    for target in ("region", "decode", "decoders", "segments", "pack"):
        assert counts[target, "read"], "some changes are harmless"
        assert counts[target, "refused"], "and others are not"


def test_digests_of_a_damaged_pack_are_made_valid() -> None:
    for pack in seeds.packs().values():
        assert signed(pack) == pack, "as they are in the pack that was written"
        changed = {**pack, "shard-00000.bin": pack["shard-00000.bin"][:-5] + b"other"}
        again = signed(changed)
        assert again["index.bin"] != pack["index.bin"]
        assert len(again["index.bin"]) == len(pack["index.bin"])


def test_a_part_with_other_pixels_is_a_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cut = RestartSegments.cut
    monkeypatch.setattr(RestartSegments, "cut", lambda self, top, *rest: cut(self, max(0, top - 1), *rest))
    with pytest.raises(AssertionError, match="other pixels"):
        outcomes(0, 60, tmp_path / "case")


def test_other_exceptions_and_refusals_of_intact_images_are_findings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    intact = Case("same pixels", "seed", {"image": b"no image"}, 0, unchanged=True)
    with pytest.raises(AssertionError, match="intact"):
        run(intact, tmp_path)

    def header(data: bytes) -> None:
        raise IndexError("at")

    monkeypatch.setattr(lazy_image, "read_header", header)
    with pytest.raises(IndexError):
        run(Case("region", "seed", {"image": b"\xff\xd8\xff"}, 0, unchanged=False), tmp_path)


FAULTY = """
import os, json, sys, time
from fuzz import fuzz_images, targets

def faulty(case, folder, rng):
    number = json.loads((folder / "case.json").read_text())["number"]
    if number == 1:
        os.kill(os.getpid(), 11)
    elif number == 2:
        time.sleep(60)
    elif number == 3:
        {}[number]

targets.TARGETS["same pixels"] = faulty
fuzz_images.SECONDS = 2.0
if __name__ == "__main__":
    sys.exit(fuzz_images.main())
"""


@pytest.mark.slow
def test_what_ends_or_stops_the_process_is_a_finding(tmp_path: Path) -> None:
    """Each with the case that did it; and the cases behind it are tried."""
    # Imported by the parent and, as its main module, by the process that works.
    script, found = tmp_path / "faulty.py", tmp_path / "found"
    script.write_text(FAULTY)
    done = subprocess.run(
        [sys.executable, str(script), "--minutes", "5", "--cases", "5", "--out", str(found)],
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    numbers = [json.loads((found / f"{kind:03d}-1" / "case.json").read_text())["number"] for kind in range(1, 4)]
    assert numbers == [1, 2, 3]
    for kind, finding in enumerate(("signal 11 ended", "takes over 2 s", "KeyError"), start=1):
        assert finding in (found / f"{kind:03d}-1" / "finding.txt").read_text()
        assert (found / f"{kind:03d}-1" / "image").read_bytes()[:2] == b"\xff\xd8"
        assert finding in done.stdout
    assert re.search(r"\b5 cases .*\b3 findings .*3 same pixels finding, 2 same pixels read", done.stdout)
