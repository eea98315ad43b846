"""`resnext bench`: measure how fast this machine feeds training, and trains."""

from __future__ import annotations

from typing import Any

import torch

from resnext_train.bench.bench_data import measure
from resnext_train.bench.bench_report import report
from resnext_train.bench.bench_scaling import measure_scaling
from resnext_train.bench.bench_step import measure_step
from resnext_train.bench.step_report import scaling_report, step_report
from resnext_train.cli.bench_requests import DataRequest, ScalingRequest, StepRequest
from resnext_train.cli.run_command import announce
from resnext_train.compute.backend import deterministic_algorithms, torch_refusals_explained
from resnext_train.config import Recipe
from resnext_train.distributed.dist_context import connect
from resnext_train.distributed.usable_cores import usable_cores
from resnext_train.run_dir.environment import environment
from resnext_train.run_dir.result_file import write_json


def data(request: DataRequest) -> None:
    """Measure the input pipeline, and print the rates."""
    result = measure(request.recipe, request.images, request.rounds, request.tiers, request.baseline)
    _show(report(result), result, request.json)


def step(request: StepRequest) -> None:
    """Measure the step on all ranks, and print what rank 0 has measured."""
    deterministic = deterministic_algorithms(request.recipe.train.deterministic)
    with deterministic, connect(request.patience_seconds) as context, torch_refusals_explained():
        result = measure_step(request.recipe, context, request.rounds)
    if context.is_main:
        _show(step_report(result), result, request.json)


def scaling(request: ScalingRequest) -> None:
    """Measure the step on each number of processes, and print the efficiency."""
    result = measure_scaling(request.arguments, request.procs or _possible(request.recipe))
    _show(scaling_report(result), result, request.json)


def _possible(recipe: Recipe) -> list[int]:
    """Return the powers of two up to the GPUs of this host, or its cores, and the micro-batches of the recipe."""
    most = min(torch.cuda.device_count() or usable_cores(), recipe.train.micro_batches)
    return [2**n for n in range(most.bit_length()) if 2**n <= most]


def _show(text: str, result: dict[str, Any], json: str | None) -> None:
    for line in text.split("\n"):
        announce(line)
    if json:
        write_json(json, "--json", {**result, **environment()}, indent=1)
