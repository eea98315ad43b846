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
from scripts.gpu_check.report import Host, Report
from scripts.gpu_check.small_run import SMALL

_GOAL = 0.90
"""Part of the bare loop's images/s that our step reaches."""

_BATCHES = ((64, 64), (32, 32), (256, 256), (256, 32))
"""Global batch and micro-batch on one GPU."""

_SIZE = 400
"""Height and width of a generated JPEG."""

_SHARE = 0.8
"""Part of the stage's time after which no further case is begun."""


def measure(context: DistContext, config: str, options: list[str], rounds: int) -> dict[str, Any]:
    """Measure one case on all ranks; return the result of this one."""
    result = measure_step(load_recipe(config, options), context, rounds, layouts=context.world_size == 1)
    return json.loads(json.dumps(result))  # type: ignore[no-any-return]


def measure_steps(host: Host, report: Report) -> None:
    """Measure ResNeXt-50 in all precisions and batches on one GPU, then on all; a small network on a CPU."""
    if host.device == "cpu":
        report.leave_out("the judgement (speed on a shared CPU is noise)")
        options = [*SMALL, "train.batch_size=32", "train.micro_batch=16"]
        report.record(cpu=run_ranks(measure, 1, host, "smoke", options, 1)[0])
        return
    deadline = time.monotonic() + _SHARE * host.seconds
    precisions = (["bf16"] if torch.cuda.is_bf16_supported(False) else []) + ["fp16", "fp32"]
    if host.gpus > 1:
        options = [f"train.batch_size={64 * host.gpus}", "train.micro_batch=64", f"train.precision={precisions[0]}"]
        _judge(host, report, host.gpus, f"{precisions[0]}, 64 on each of {host.gpus}", options)
    for precision in precisions:
        for batch, micro_batch in _BATCHES:
            case = f"{precision}, {batch // micro_batch} × {micro_batch}"
            if time.monotonic() > deadline:
                report.leave_out(f"{case} (the time was over)")
                continue
            options = [f"train.batch_size={batch}", f"train.micro_batch={micro_batch}", f"train.precision={precision}"]
            _judge(host, report, 1, case, options)
            torch.cuda.empty_cache()


def _judge(host: Host, report: Report, world_size: int, case: str, options: list[str]) -> None:
    result = run_ranks(measure, world_size, host, "resnext50_32x4d", options, 3)[0]
    report.record(**{case: result})
    ratio = result["ratio"]
    report.require(ratio >= _GOAL, f"{case}: {ratio:.2f} of the bare loop's images/s, under {_GOAL}")


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
        *(f"log.every={steps // 6}", "log.tensorboard=false"),
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
