from __future__ import annotations

from pathlib import Path

import pytest

from resnext_train.run_dir import environment as module

GIT = """#!/bin/sh
case "$*" in
    *rev-parse*) echo abc123 ;;
    *) echo "$*" > "$(dirname "$0")/asked"; {status} ;;
esac
"""


@pytest.mark.parametrize(
    ("status", "known"),
    [
        ("exit 128", {"git_commit": "abc123"}),  # as where it takes too long
        ("echo ' M a.py'", {"git_commit": "abc123", "git_changed": True}),
        ("true", {"git_commit": "abc123", "git_changed": False}),
    ],
)
def test_the_commit_is_known_also_where_the_state_of_its_files_is_not(
    status: str, known: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".git").mkdir()
    (tmp_path / "git").write_text(GIT.replace("{status}", status))
    (tmp_path / "git").chmod(0o755)
    monkeypatch.setattr(module, "__file__", str(tmp_path / "resnext_train" / "run_dir" / "environment.py"))
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    found = module.environment()
    assert {key: value for key, value in found.items() if key.startswith("git_")} == known
    assert "--no-optional-locks" in (tmp_path / "asked").read_text(), "a lock would fail the user's own git commands"
