"""Stages I and J: steps beside a bare loop, and training from a pack of JPEGs."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import torch
from torchvision.io import write_jpeg

from resnext_train.bench.bench_step import measure_step
from resnext_train.config import load_recipe
from resnext_train.data.sources.synthetic_images import SyntheticImages
from resnext_train.distributed.dist_context import DistContext
from scripts.gpu_check.commands import resnext
from scripts.gpu_check.ranks import run_ranks
from scripts.gpu_check.report import CannotRunHereError, Host, Report
from scripts.gpu_check.small_run import SMALL

_GOAL = 0.90
"""Part of the bare loop's images/s that our step reaches."""

_BATCHES = ((64, 64), (256, 32), (256, 256), (32, 32))
"""Global batch and micro-batch on one GPU, the most telling first."""

_NEEDED = _BATCHES[:2]
"""Those without which, in the best precision, the stage has not shown what it is for."""

_SHARE = 0.75
"""Part of the stage's time after which no further case is begun."""

_SIZE = 400
"""Height and width of a generated JPEG."""


def measure(
    context: DistContext, config: str, cases: dict[str, list[str]], rounds: int, deadline: float
) -> dict[str, Any]:
    """Measure the cases that are begun before `deadline` on all ranks; return the results of this one by case."""
    results = {}
    for case, options in cases.items():
        if max(context.gather(time.monotonic())) > deadline:
            break
        result = measure_step(load_recipe(config, options), context, rounds, layouts=context.world_size == 1)
        results[case] = json.loads(json.dumps(result))  # plain values
        if context.device.type == "cuda":
            torch.cuda.empty_cache()
    return results


def measure_steps(host: Host, report: Report) -> None:
    """Measure ResNeXt-50 in all precisions and batches on one GPU, and on all; a small network on a CPU."""
    deadline = time.monotonic() + _SHARE * host.seconds
    if host.device == "cpu":
        options = [*SMALL, "train.batch_size=32", "train.micro_batch=16"]
        report.record(**run_ranks(measure, 1, host, "smoke", {"cpu": options}, 1, deadline)[0])
        raise CannotRunHereError("speed on a shared CPU is noise: recorded, and not judged")
    precisions = (["bf16"] if torch.cuda.is_bf16_supported(False) else []) + ["fp16", "fp32"]
    needed = {
        f"{precisions[0]}, {batch // micro} × {micro}": [
            *(f"train.batch_size={batch}", f"train.micro_batch={micro}", f"train.precision={precisions[0]}")
        ]
        for batch, micro in _NEEDED
    }
    measured = _judge(host, report, 1, needed, deadline)
    for case in needed:
        report.require(case in measured, f"{case}: not measured before the time was over")
    if host.gpus > 1:
        options = [f"train.batch_size={64 * host.gpus}", "train.micro_batch=64", f"train.precision={precisions[0]}"]
        _judge(host, report, host.gpus, {f"{precisions[0]}, 64 on each of {host.gpus} GPUs": options}, deadline)
    for batch, micro_batch in _BATCHES:
        sizes = [f"train.batch_size={batch}", f"train.micro_batch={micro_batch}"]
        cases = {f"{p}, {batch // micro_batch} × {micro_batch}": [*sizes, f"train.precision={p}"] for p in precisions}
        cases = {case: options for case, options in cases.items() if case not in needed}
        if batch == _BATCHES[0][0]:
            best = f"train.precision={precisions[0]}"
            cases[f"{precisions[0]}, 1 × {batch}, contiguous"] = [*sizes, best, "train.layout=contiguous"]
        _judge(host, report, 1, cases, deadline)


def _judge(host: Host, report: Report, world_size: int, cases: dict[str, list[str]], deadline: float) -> set[str]:
    """Measure the cases, record each, and let the stage fail where one is too slow; return which were measured."""
    results = {}
    if time.monotonic() < deadline:
        results = run_ranks(measure, world_size, host, "resnext50_32x4d", cases, 3, deadline)[0]
    report.record(**results)
    for case in cases:
        if case not in results:
            report.leave_out(f"{case} (the time was over)")
            continue
        ratio = results[case]["ratio"]
        report.require(ratio >= _GOAL, f"{case}: {ratio:.2f} of the bare loop's images/s, under {_GOAL}")
    return set(results)


def measure_training(host: Host, report: Report) -> None:
    """Pack generated JPEGs by the command, and train on the pack on all GPUs. Nothing is judged."""
    on_gpu = host.device == "cuda"
    images = 1024 if on_gpu else 96
    began = time.monotonic()
    _write_images(host.folder / "images", images)
    resnext(host, "prepare", "pack", str(host.folder / "images"), str(host.folder / "pack"), "--tier", "resized")
    report.record(seconds_of_packing=time.monotonic() - began)
    out = host.folder / "run"
    per_step, steps = (64 * host.ranks, 60) if on_gpu else (32, 6)
    recipe = (
        ["--config", "resnext50_32x4d"]
        if on_gpu
        else ["--config", "smoke", *(text for text in SMALL if not text.startswith("data."))]
    )
    resnext(
        host,
        *("train", "--procs", str(host.ranks if on_gpu else 1), *recipe, "--out", str(out)),
        *("data.source=folder", f"data.root={host.folder / 'pack'}", "data.workers=auto"),
        *(f"train.batch_size={per_step}", f"train.micro_batch={64 if on_gpu else 16}", "train.precision=auto"),
        *(f"train.max_steps={steps}", "train.epochs=1000", "eval.every_epochs=1000", "schedule.warmup=0"),
        *(f"log.every={steps // 6}", "log.to=[]"),
    )
    events = [json.loads(line) for line in (out / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    laps = [event for event in events if event["event"] == "step"]
    report.record(
        ranks=host.ranks if on_gpu else 1,
        precision=events[0]["precision"],
        images_per_s=[lap["images_per_s"] for lap in laps],
        data_wait=[lap["data_wait"] for lap in laps],
        weights_sha256=events[-1]["weights_sha256"],
    )
    report.require(len(laps) == 6, f"{len(laps)} log lines instead of 6")


def _write_images(root: Path, images: int) -> None:
    """Write a data root of JPEGs of 400 × 400 pixels in ten classes, and a tenth as many for validation."""
    for split, count in (("train", images), ("val", images // 10 + 10)):
        source = SyntheticImages(10, count, _SIZE, "train" if split == "train" else "val")
        for i in range(count):
            folder = root / split / source.classes[source.labels[i]]
            folder.mkdir(parents=True, exist_ok=True)
            write_jpeg(source.image(i).region(0, 0, _SIZE, _SIZE), str(folder / f"{i}.JPEG"), quality=90)
