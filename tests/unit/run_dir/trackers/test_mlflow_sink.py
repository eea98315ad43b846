"""Where MLflow keeps runs without a server."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import mlflow.tracking
import pytest

from resnext_train.run_dir.trackers.mlflow_sink import _own_store


@pytest.mark.parametrize("number", [0, errno.EPERM, errno.EEXIST])
def test_the_file_is_made_with_and_without_hard_links(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or another run makes it at the same moment, and that one is kept."""

    def no_link(source: Path, target: Path) -> None:
        if number == errno.EEXIST:
            target.write_text("of another run")
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(mlflow.tracking, "MlflowClient", lambda uri: Path(uri.removeprefix("sqlite:///")).touch())
    if number:
        monkeypatch.setattr(os, "link", no_link)
    store = tmp_path / "mlflow.db"
    assert _own_store(store) == f"sqlite:///{store}"
    assert store.read_text() == ("of another run" if number == errno.EEXIST else "")
    assert [path.name for path in tmp_path.iterdir()] == ["mlflow.db"]
