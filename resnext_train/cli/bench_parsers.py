"""The arguments of `resnext bench`; see parsers.py. Imports no torch."""

from __future__ import annotations

from argparse import ArgumentParser

from resnext_train.bench import TIERS
from resnext_train.cli.parsers import add_overrides, add_procs


def bench_data_arguments(p: ArgumentParser) -> None:
    p.description = (
        "Measure how fast this machine reads a recipe's training images, from a folder and packed: as uint8 with one "
        "loader process and with all, and as normalised floats with colours in one process."
    )
    p.epilog = "example:\n  {prog} --config resnext50_32x4d --data /path/to/imagenet --baseline"
    p.add_argument("--config", required=True, metavar="NAME|PATH", help="the recipe: crop, colours, micro-batch")
    p.add_argument(
        "--images",
        type=int,
        default=512,
        metavar="N",
        help="images in the sample; a pass has as many or more (default: 512)",
    )
    _add_rounds(p)
    p.add_argument(
        "--tiers",
        nargs="+",
        metavar="TIER",
        help=f"tiers to measure for a folder: {', '.join(TIERS)}; all but the first are packed for it (default: all)",
    )
    p.add_argument("--baseline", action="store_true", help="also time torchvision's usual pipelines in turns with ours")
    _add_json(p)
    add_overrides(p, {("--data",): "data.root", ("-j", "--workers"): "data.workers"})


def bench_step_arguments(p: ArgumentParser) -> None:
    p.description = (
        "Measure a recipe's optimizer step on this machine, part by part, on images in memory and in turns with a bare "
        "training loop: images/s, milliseconds, launches, memory, and the share of the device's arithmetic and "
        "bandwidth. Needs no data."
    )
    p.epilog = "example:\n  {prog} --config resnext50_32x4d train.precision=bf16"
    p.add_argument("--config", required=True, metavar="NAME|PATH", help="the recipe: network, crop, batch, precision")
    _add_rounds(p)
    add_procs(p)
    _add_json(p)
    add_overrides(p, {("-b", "--batch-size"): "train.batch_size"})


def bench_scaling_arguments(p: ArgumentParser) -> None:
    p.description = (
        "Measure a recipe's optimizer step on one process and on more, and the efficiency: images/s over those of one "
        "process times their number. The step is the same on all: raise --batch-size to keep many GPUs busy."
    )
    p.epilog = "example:\n  {prog} --config resnext50_32x4d --batch-size 1024 --procs 1,2,4,8"
    p.add_argument("--config", required=True, metavar="NAME|PATH", help="the recipe: network, crop, batch, precision")
    p.add_argument(
        "--procs",
        "--gpus",
        metavar="N,N,...",
        help="numbers of processes beside 1 (default: 2, 4, 8, ... up to the GPUs, or cores, and the micro-batches)",
    )
    _add_rounds(p)
    _add_json(p)
    add_overrides(p, {("-b", "--batch-size"): "train.batch_size"})


def _add_rounds(p: ArgumentParser) -> None:
    p.add_argument("--rounds", type=int, default=5, metavar="N", help="measured passes (default: 5)")


def _add_json(p: ArgumentParser) -> None:
    p.add_argument("--json", metavar="FILE", help="also write all measurements to this file")
