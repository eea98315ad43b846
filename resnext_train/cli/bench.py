"""`resnext bench`: measure how fast this machine feeds training."""

from __future__ import annotations

from resnext_train.bench.bench_data import measure
from resnext_train.bench.bench_report import report
from resnext_train.cli.json_file import write_json
from resnext_train.cli.requests import BenchRequest
from resnext_train.cli.run_command import announce
from resnext_train.run_dir.environment import environment


def bench(request: BenchRequest) -> None:
    """Measure, and print the rates."""
    result = measure(request.recipe, request.images, request.rounds, request.tiers, request.baseline)
    for line in report(result).split("\n"):
        announce(line)
    if request.json:
        write_json(request.json, {**result, **environment()}, indent=1)
