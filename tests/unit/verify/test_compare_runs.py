"""What the proof of exact resuming compares."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch

from resnext_train.verify.compare_runs import compare_runs


def test_a_proof_finds_what_differs(tmp_path: Path, whole: Path) -> None:
    """Two runs, of which one has another bit, a line twice and a step less."""
    runs = [tmp_path / name for name in ("whole", "killed")]
    for run in runs:
        shutil.copytree(whole, run)
    last = runs[1] / "checkpoints" / "last.pt"
    state = torch.load(last, weights_only=True)
    state["model"]["fc.bias"].view(torch.int32)[2] ^= 1
    state["checkpointer"]["best"]["loss"] *= 1 + 1e-15
    torch.save(state, last)
    log = runs[1] / "log.jsonl"
    lines = [line for line in log.read_text().splitlines() if '"step", "step": 4' not in line]
    log.write_text("\n".join([*lines, next(line for line in lines if '"step", "step": 6' in line), ""]))
    _, differences = compare_runs(*runs)
    assert differences == [
        "log.jsonl, step 6 is logged twice in killed",
        "checkpointer/best/loss differs",
        "log.jsonl, step 4 is missing in one run",
        "model/fc.bias differs",
    ]
