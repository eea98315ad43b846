"""resnext-info: parameters, multiply-adds and stages of a network."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from resnext_train.cli.common import run_command

if TYPE_CHECKING:
    from resnext_train.config import ModelSection
    from resnext_train.models.complexity import Complexity

NAME = "resnext-info"


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(
        prog=NAME,
        description="Parameters, multiply-adds and stages of a network.",
        epilog="example: resnext-info resnext50_32x4d",
    )
    what = p.add_mutually_exclusive_group(required=True)
    what.add_argument("arch", nargs="?", metavar="ARCH", help="a network's name, such as resnext50_32x4d")
    what.add_argument("--config", metavar="NAME|PATH", help="a recipe, whose network is described")
    p.add_argument("--size", type=int, default=224, metavar="PIXELS", help="height and width of an image (default 224)")
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    args = parser().parse_args(argv)
    return run_command(NAME, lambda: _info(args))


def _info(args: argparse.Namespace) -> None:
    from resnext_train.config import ModelSection, load_recipe
    from resnext_train.errors import InputError
    from resnext_train.models.architecture import architecture_of

    if args.size < 32:
        raise InputError(f"--size {args.size}: these networks divide an image by 32; use at least 32")
    section = load_recipe(args.config).model if args.config else ModelSection(arch=args.arch)
    architecture_of(section)

    import torch

    from resnext_train.models.build import build_model
    from resnext_train.models.complexity import measure

    classes = 1000 if section.num_classes == "auto" else section.num_classes
    with torch.device("meta"):
        complexity = measure(build_model(section, classes), args.size)
    print(_table(section, classes, complexity))


def _table(section: ModelSection, classes: int, complexity: Complexity) -> str:
    """The stages as in Table 1 of the ResNeXt paper, with the costs of each."""
    lines = [
        f"{section.arch}, {classes} classes",
        f"parameters     {complexity.parameters:,}",
        f"multiply-adds  {complexity.multiply_adds:,} ({complexity.multiply_adds / 1e9:.2f} G) at "
        f"{complexity.size} × {complexity.size}",
        "",
        f"{'stage':9s}{'output':>14s}{'parameters':>14s}{'multiply-adds':>16s}   layers",
    ]
    for part in complexity.parts:
        if part.name in ("bn1", "relu"):
            continue
        output = " × ".join(str(n) for n in part.output)
        costs = f"{part.parameters:14,d}{part.multiply_adds:16,d}"
        lines.append(f"{part.name:9s}{output:>14s}{costs}   {_layers(section, part.name)}")
    return "\n".join(lines)


def _layers(section: ModelSection, name: str) -> str:
    """What a row of the table consists of, as the paper writes it."""
    from resnext_train.models.architecture import architecture_of

    a = architecture_of(section)
    fixed = {
        "conv1": "7×7, 64, stride 2",
        "maxpool": "3×3 max pool, stride 2",
        "avgpool": "global average pool",
        "fc": "fully connected",
    }
    if name in fixed:
        return fixed[name]
    stage = int(name.removeprefix("layer")) - 1
    inner, outer, blocks = a.inner_width(stage), a.outer_width(stage), a.blocks[stage]
    if a.block == "basic":
        return f"[3×3, {outer}; 3×3, {outer}] × {blocks}"
    groups = f", C={a.cardinality}" if a.cardinality > 1 else ""
    return f"[1×1, {inner}; 3×3, {inner}{groups}; 1×1, {outer}] × {blocks}"


if __name__ == "__main__":
    raise SystemExit(main())
