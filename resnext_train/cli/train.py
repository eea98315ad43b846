"""resnext-train: train a network from a recipe."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from resnext_train.cli.run_command import announce, run_command
from resnext_train.distributed.rank import this_rank
from resnext_train.distributed.stop_signals import TORCHRUN
from resnext_train.errors import InputError

if TYPE_CHECKING:
    from resnext_train.config import Recipe
    from resnext_train.training.setup import Setup

NAME = "resnext-train"


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        prog=NAME,
        description="Train a network from a recipe, on one process or, under torchrun, on many.",
        epilog=f"8 GPUs: {TORCHRUN.format(8)} -m resnext_train train --config resnext50_32x4d.yaml "
        "data.root=/path/to/imagenet. SIGTERM, SIGINT (Ctrl-C), SIGUSR1 and SIGHUP make a run save itself and stop, "
        "with exit code 75; the same command resumes it.",
    )
    p.add_argument("--config", required=True, metavar="NAME|PATH", help="a shipped recipe's file name, or a path")
    p.add_argument("--out", metavar="DIR", help="run folder (default: runs/<recipe name>)")
    p.add_argument(
        "--resume",
        default="auto",
        metavar="auto|never|PATH",
        help="auto: continue the run in --out if there is one (default); never: only start a new one; "
        "PATH: continue from that checkpoint, with changes to the recipe if you override it",
    )
    p.add_argument("--dry-run", action="store_true", help="find the data, print what would be done, train nothing")
    p.add_argument("overrides", nargs="*", metavar="section.key=value", help="replace a value of the recipe")
    return p


def main(argv: Sequence[str] | None = None) -> int:
    args = parser().parse_intermixed_args(argv)  # overrides may stand anywhere among the options
    return run_command(NAME, lambda: _train(args))


def _train(args: argparse.Namespace) -> None:
    # Checks that need no torch come first: most mistakes are reported in a fraction of a second.

    from resnext_train.checkpoint.resume import check_resume, check_weights
    from resnext_train.config import load_recipe, run_name
    from resnext_train.models.architecture import check_model
    from resnext_train.run_dir.run_paths import RunDir

    recipe = load_recipe(args.config, args.overrides)
    check_model(recipe.model)
    _check_processes(recipe)
    folder = RunDir(Path(args.out) if args.out else Path("runs") / run_name(args.config))
    if args.dry_run:
        check_weights(recipe)
    else:
        check_resume(folder, recipe, args.resume)

    from resnext_train.distributed.dist_context import connect
    from resnext_train.training.setup import set_up
    from resnext_train.training.trainer import train

    with connect(recipe.train.patience_seconds) as context:
        setup = set_up(recipe, context)
        if context.is_main:
            print(_describe(setup), flush=True)
            _suggest_torchrun(setup)
        if args.dry_run:
            return
        summary = train(setup, folder, args.resume)
    if context.is_main:
        _report(summary, folder.path)


def _check_processes(recipe: Recipe) -> None:
    world_size, micro_batches = this_rank().world_size, recipe.train.micro_batches
    if world_size > micro_batches:
        raise InputError(
            f"{world_size} processes but only {micro_batches} micro-batches in a step (train.batch_size "
            f"{recipe.train.batch_size} / train.micro_batch {recipe.train.micro_batch}); "
            f"start at most {micro_batches}, or make train.micro_batch smaller"
        )


def _describe(setup: Setup) -> str:
    """Return the printed summary of the run: network, data, batch, ranks, length and learning rate."""
    import torch

    from resnext_train.data.loader_workers import worker_count
    from resnext_train.data.sampler import shard_for_rank
    from resnext_train.models.architecture import title_of
    from resnext_train.models.complexity import check_training, measure

    recipe, plan, context = setup.recipe, setup.plan, setup.context
    size = measure(recipe.model, setup.num_classes, recipe.eval.crop)
    check_training(recipe.model, setup.num_classes, recipe.augment.size)
    shards = [len(shard_for_rank(plan.micro_batches, context.world_size, r)) for r in range(context.world_size)]
    images = sorted({n * recipe.train.micro_batch for n in shards}, reverse=True)
    training, counted = len(setup.splits.train), len(setup.evaluation.images)
    storage = " and ".join(dict.fromkeys(setup.splits.storage.values()))  # once where both splits have the same
    lines = {
        "network": f"{title_of(recipe.model)}, {size.parameters:,} parameters, "
        f"{size.multiply_adds / 1e9:.2f} G multiply-adds at {recipe.eval.crop}",
        "data": f"{setup.num_classes} classes, {training:,} training, {counted:,} validation images; {storage}",
        "batch": f"{plan.batch_size} images a step over all processes, in {plan.micro_batches} micro-batches of "
        f"{recipe.train.micro_batch}",
        "processes": f"{context.world_size} with {' or '.join(map(str, images))} images of a step each, "
        f"loader processes: {worker_count(recipe.data.workers, context.local_world_size)} each",
        "device": f"{context.device.type}, {setup.precision.name}, {torch.get_num_threads()} threads",
        "length": f"{plan.steps_per_epoch} steps an epoch, {setup.total_steps} steps in all"
        + (f"; {plan.dropped} images of each epoch dropped, too few for a step" if plan.dropped else ""),
        "evaluation": f"{setup.evaluation.protocol}, every {recipe.eval.every_epochs} epochs",
        "learning rate": _lr_table(setup),
    }
    return "\n".join(f"{name:14s}{text}" for name, text in lines.items())


def _lr_table(setup: Setup, rows: int = 8) -> str:
    """List the learning rate by epoch: each change to a constant rate, and about `rows` points of a curve."""
    schedule, per_epoch = setup.schedule(), setup.plan.steps_per_epoch
    rates = [schedule.lr(epoch * per_epoch) for epoch in range(setup.epoch_of(setup.total_steps - 1))]
    changes = [e for e, lr in enumerate(rates) if e == 0 or lr != rates[e - 1]]
    kept = {e for e in changes if rates[e : e + 2] == [rates[e]] * 2} | {0, changes[-1]}
    stride = -(-len(changes) // rows)
    if len(kept) > 2 * rows:  # a staircase of many steps: thin it out like a curve
        kept = {0, changes[-1]}
    text = ", ".join(f"{rates[e]:.4g} at epoch {e + 1}" for i, e in enumerate(changes) if i % stride == 0 or e in kept)
    if setup.recipe.schedule.name == "plateau":
        text += f", × {setup.recipe.schedule.factor:g} on each plateau"
    return text


def _suggest_torchrun(setup: Setup) -> None:
    import torch

    gpus = torch.cuda.device_count()
    useful = min(gpus, setup.plan.micro_batches)
    if useful > setup.context.local_world_size:
        print(
            f"only {setup.context.local_world_size} of {gpus} GPUs in use; for {useful}: "
            f"{TORCHRUN.format(useful)} -m resnext_train train {shlex.join(sys.argv[1:])}",
            flush=True,
        )


def _report(summary: dict[str, object], folder: object) -> None:
    for name, result in (("final", summary["last"]), ("best", summary["best"])):
        if not isinstance(result, dict):
            continue  # no best.pt: a finished run was resumed after it was deleted
        print(
            f"{name:6s}top-1 {result['top1']:.2f} %, top-5 {result['top5']:.2f} % "
            f"({result['top1_correct']} and {result['top5_correct']} of {result['count']}), epoch {result['epoch']}"
        )
    announce(f"run folder: {folder}")


if __name__ == "__main__":
    raise SystemExit(main())
