"""Folders and files that the user may not read or write: one sentence each."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.runs import RUN, environment

AS_A_USER = (
    [*("setpriv", "--bounding-set=-all", "--inh-caps=-all", "--ambient-caps=-all", "--")] if os.geteuid() == 0 else []
)
"""Root may do all; without its capabilities it may do what its files' permissions say."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(AS_A_USER) and not shutil.which("setpriv"), reason="root needs setpriv, to be refused"),
]

COMMANDS = """
import json, sys
from helpers.commands import train
for arguments in json.loads(sys.argv[1]):
    print(train(arguments), file=sys.stderr)
"""


def test_what_may_not_be_read_or_written_is_one_sentence(image_root: Path, tmp_path: Path) -> None:
    folder = [a for a in RUN if not a.startswith("data.")] + ["data.source=folder", "data.workers=1"]
    roots = {name: shutil.copytree(image_root, tmp_path / name) for name in ("closed", "train", "class", "image")}
    closed = {
        "closed": roots["closed"],
        "train": roots["train"] / "train",
        "class": roots["class"] / "train" / "dog",
        "image": roots["image"] / "train" / "dog" / "1.JPEG",
        "out": tmp_path / "out",
    }
    closed["out"].mkdir()
    runs = [[*folder, f"data.root={root}", "--out", str(tmp_path / "run" / name)] for name, root in roots.items()]
    runs += [[*RUN, "--out", str(closed["out"] / "run")]]
    for path in closed.values():
        path.chmod(0)
    try:
        done = subprocess.run(
            [*AS_A_USER, sys.executable, "-c", COMMANDS, json.dumps(runs)],
            env=environment() | {"PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
    finally:
        for path in closed.values():
            path.chmod(0o755)
    lines = done.stderr.splitlines()
    assert lines[1::2] == ["2"] * len(closed), done.stderr
    assert all(str(path) in line for path, line in zip(closed.values(), lines[::2], strict=True)), done.stderr
