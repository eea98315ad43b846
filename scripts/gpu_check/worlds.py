"""Stages F and G: a step and an evaluation are the same on any number of ranks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from resnext_train.distributed.dist_context import DistContext
from scripts.gpu_check.commands import resnext
from scripts.gpu_check.parity import relative_error, tensor_scale
from scripts.gpu_check.ranks import equal_on_all, run_ranks
from scripts.gpu_check.report import CannotRunHereError, Host, Report
from scripts.gpu_check.small_run import SMALL, SmallRun, small_recipe

_MICRO_BATCHES = 11
"""A prime: no number of ranks but 1 divides it, so shards are unequal."""

_OPTIONS = (
    *(f"train.batch_size={4 * _MICRO_BATCHES}", "train.micro_batch=4", "train.last_batch=keep"),
    f"data.train_images={4 * _MICRO_BATCHES + 25}",  # the second step has 25 images in micro-batches of 3 and 2
)


def take_two_steps(context: DistContext) -> list[dict[str, torch.Tensor]]:
    """Take a whole and a partial step in fp64; return all tensors after each."""
    run = SmallRun(context, small_recipe(*_OPTIONS), torch.float64)
    assert run.setup.plan.partial == 25
    run.step.warm_up_ddp_buckets(4, run.setup.recipe.augment.size)
    micro_batches = iter(run.loader(2))
    states = []
    for number in range(2):
        run.take(micro_batches, number)
        states.append({**run.tensors(), "loss": torch.tensor([run.mean_loss()], dtype=torch.float64)})
    return states


def compare_worlds(host: Host, report: Report) -> None:
    """Take the same two steps on 1, 2, 8 and all ranks."""
    possible = sorted({n for n in (1, 2, 8, min(host.ranks, _MICRO_BATCHES)) if n <= host.ranks})
    if len(possible) == 1:
        raise CannotRunHereError("it needs two GPUs")
    report.record(worlds=possible, images_of_the_steps=[4 * _MICRO_BATCHES, 25])
    (single,) = run_ranks(take_two_steps, 1, host)
    for world_size in possible[1:]:
        ranks = run_ranks(take_two_steps, world_size, host)
        for number, name in enumerate(("whole", "partial")):
            exact = single[number]
            error = max(relative_error(ranks[0][number][key], t, tensor_scale(exact, key)) for key, t in exact.items())
            report.at_most(f"error_of_the_{name}_step_on_{world_size}", error, 1e-10)
            states = [{k: t for k, t in r[number].items() if not k.startswith("gradient ")} for r in ranks]
            report.require(equal_on_all(states), f"the {world_size} ranks differ after the {name} step")


def compare_evaluations(host: Host, report: Report) -> None:
    """Train one epoch on all ranks, and evaluate its images again by the command, on one and on all."""
    images = 1003 if host.device == "cuda" else 203  # no multiple of a batch or of ranks
    trained_on = host.gpus or 1
    evaluated_on = sorted({1, host.gpus}) if host.gpus else [2]  # on a CPU each process takes seconds to start
    micro_batches = max(2, trained_on)
    out = host.folder / "run"
    options = [
        *("--config", "smoke", *SMALL, f"data.val_images={images}", f"data.train_images={32 * micro_batches}"),
        *(f"train.batch_size={16 * micro_batches}", "train.micro_batch=16", "train.epochs=1", "eval.batch_size=64"),
        "train.precision=auto",
    ]
    resnext(host, "train", "--procs", str(trained_on), *options, "--out", str(out))
    events = [json.loads(line) for line in (out / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    epoch = next(event for event in events if event["event"] == "epoch")
    trained = {key: epoch[f"val_{key}"] for key in ("count", "top1_correct", "top5_correct")}
    report.record(trained_on=trained_on, in_training=trained, loss_in_training=epoch["val_loss"])
    report.require(trained["count"] == images, f"training has evaluated {trained['count']} of {images} images")
    for world_size in evaluated_on:
        result = _evaluate(host, world_size, out)
        report.record(**{f"by_command_on_{world_size}": result})
        counts = {key: result[key] for key in trained}
        report.require(counts == trained, f"evaluated on {world_size}: {counts}, in training: {trained}")


def _evaluate(host: Host, world_size: int, out: Path) -> dict[str, Any]:
    file = host.folder / f"eval{world_size}.json"
    checkpoint = str(out / "checkpoints" / "last.pt")
    resnext(host, "eval", "--procs", str(world_size), "--ckpt", checkpoint, "--json", str(file))
    result = json.loads(file.read_text(encoding="utf-8"))
    return {key: result[key] for key in ("count", "top1_correct", "top5_correct", "loss")}
