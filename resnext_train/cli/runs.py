"""`resnext runs`: list runs."""

from __future__ import annotations

from resnext_train.cli.run_command import announce
from resnext_train.cli.sweep_requests import RunsRequest
from resnext_train.report.run_list import run_list


def runs(request: RunsRequest) -> None:
    """Print a line for each run."""
    for line in run_list(request.folders):
        announce(line)
