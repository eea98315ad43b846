"""What libraries say of a tracker reaches the log without keys and passwords."""

from __future__ import annotations

import pytest

from resnext_train.run_dir.trackers.secrets import without_secrets
from resnext_train.run_dir.trackers.tracker_guard import TrackerGuard


def refuse() -> None:
    raise ConnectionError("API request to https://ada:s3cr@t%2F@mlflow.example:5000/api/2.0 failed; token abcdef0123")


def test_a_failure_is_told_without_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "abcdef0123")
    (fault,) = TrackerGuard("mlflow", False, refuse).take_faults()  # type: ignore[arg-type]
    assert fault.endswith("API request to https://***@mlflow.example:5000/api/2.0 failed; token ***")


def test_other_text_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_KEY", "1")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "")
    text = "sqlite:///runs/a@b/mlflow.db: 10 rows, see https://example.org/@1"
    assert without_secrets(text) == text
