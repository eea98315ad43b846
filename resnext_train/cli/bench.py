"""resnext-bench: measure how fast this machine feeds training."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from resnext_train.bench import TIERS
from resnext_train.cli.json_file import write_json
from resnext_train.cli.run_command import announce, run_command
from resnext_train.errors import InputError

NAME = "resnext-bench"


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        prog=NAME,
        description="Measure how fast this machine reads a recipe's training images, from a folder and packed: as "
        "uint8 with one loader process and with all, and as normalised floats with colours in one process.",
        epilog=f"example: {NAME} data --config resnext50_32x4d.yaml --data /path/to/imagenet --baseline",
    )
    p.add_argument("what", choices=["data"], help="what to measure: data, the input pipeline")
    p.add_argument("--config", required=True, metavar="NAME|PATH", help="the recipe: crop, colours, micro-batch")
    p.add_argument(
        "--data", metavar="DIR", help="folder with train/, or of classes, or a pack (default: the recipe's data)"
    )
    p.add_argument(
        "--images",
        type=int,
        default=512,
        metavar="N",
        help="images in the sample; a pass has as many or more (default: 512)",
    )
    p.add_argument("--rounds", type=int, default=5, metavar="N", help="measured passes (default: 5)")
    p.add_argument(
        "--tiers",
        nargs="+",
        metavar="TIER",
        help=f"tiers to measure for a folder: {', '.join(TIERS)}; all but the first are packed for it (default: all)",
    )
    p.add_argument("--workers", metavar="W", help="loader processes (default: the recipe's data.workers)")
    p.add_argument("--baseline", action="store_true", help="also time torchvision's usual pipelines in turns with ours")
    p.add_argument("--json", metavar="FILE", help="also write all measurements to this file")
    p.add_argument("overrides", nargs="*", metavar="section.key=value", help="replace a value of the recipe")
    return p


def main(argv: Sequence[str] | None = None) -> int:
    args = parser().parse_intermixed_args(argv)  # overrides may stand anywhere among the options
    return run_command(NAME, lambda: _bench(args))


def _bench(args: argparse.Namespace) -> None:
    from resnext_train.config import load_recipe

    words = args.tiers or []  # argparse gives --tiers the overrides that follow it, too
    tiers, overrides = [w for w in words if "=" not in w], [w for w in words if "=" in w] + args.overrides
    _check(args, tiers)
    if args.data is not None:
        overrides += ["data.source=folder", f"data.root={args.data}"]
    if args.workers is not None:
        overrides.append(f"data.workers={args.workers}")
    recipe = load_recipe(args.config, overrides)
    if args.json and not Path(args.json).absolute().parent.is_dir():
        raise InputError(f"--json: the folder of {args.json} does not exist; make it first")

    from resnext_train.bench.bench_data import measure
    from resnext_train.bench.bench_report import report

    result = measure(recipe, args.images, args.rounds, list(dict.fromkeys(tiers)), args.baseline)
    for line in report(result).split("\n"):
        announce(line)
    if args.json:
        from resnext_train.run_dir.environment import environment

        write_json(args.json, {**result, **environment()}, indent=1)


def _check(args: argparse.Namespace, tiers: list[str]) -> None:
    for option, least in (("images", 2), ("rounds", 1)):
        if getattr(args, option) < least:
            raise InputError(f"--{option} {getattr(args, option)}: must be at least {least}")
    for tier in tiers:
        if tier not in TIERS:
            raise InputError(f"--tiers {tier}: must be among {', '.join(TIERS)}")
    if args.tiers and not tiers:
        raise InputError(f"--tiers names no tier; name some of {', '.join(TIERS)}")


if __name__ == "__main__":
    raise SystemExit(main())
