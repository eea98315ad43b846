"""The arguments of `resnext sweep` and `resnext runs`, with their help. Imports no torch."""

from __future__ import annotations

from argparse import ArgumentParser

from resnext_train.cli.parsers import add_overrides, add_procs


def sweep_arguments(p: ArgumentParser) -> None:
    p.description = (
        "Train several recipes one after another, each with several seeds and values of keys; a run folder for each, "
        "named by what differs. The same command skips what is done and continues what was cut off. At the end each "
        "run's last checkpoint is evaluated, and a table and a report compare the runs."
    )
    p.epilog = (
        "examples:\n  {prog} --config resnet50_1x64d resnext50_32x4d --seeds 0:3 data.root=/path/to/imagenet\n"
        "  {prog} --config smoke --set optimizer.lr=0.05,0.1 --set train.epochs=2,4\n"
        "  {prog} --table 3 --seeds 0:3 --procs 8 --print data.root=/path/to/imagenet"
    )
    p.add_argument(
        "--config",
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME|PATH",
        help="recipes: shipped ones by their names, or paths",
    )
    p.add_argument(
        "--table",
        metavar="NAME",
        help="all recipes of a table of the papers, as `resnext report --table` names them: 3, 7, resnet-6 ...",
    )
    p.add_argument(
        "--seeds", metavar="FIRST:END", help="seeds of each recipe: 0:3 for 0, 1 and 2; or as 0,1,5 (default: its own)"
    )
    p.add_argument(
        "--set",
        nargs="+",
        action="extend",
        default=[],
        metavar="KEY=A,B",
        help="values that a key of the recipe has in turn, as in optimizer.lr=0.05,0.1; of several keys, all "
        "combinations",
    )
    p.add_argument("--out", metavar="DIR", help="folder in which the run folders are (default: runs)")
    p.add_argument(
        "--print", action="store_true", help="print the command lines of the runs that are not done, and run nothing"
    )
    add_procs(p)
    add_overrides(
        p,
        {
            ("--epochs",): "train.epochs",
            ("-b", "--batch-size"): "train.batch_size",
            ("--lr",): "optimizer.lr",
            ("--data",): "data.root",
            ("-j", "--workers"): "data.workers",
        },
    )


def runs_arguments(p: ArgumentParser) -> None:
    p.description = "List the runs in a folder with their state, epoch, best accuracy, and how long ago they logged."
    p.epilog = "example:\n  {prog} runs"
    p.add_argument("folder", nargs="*", default=["runs"], metavar="FOLDER", help="folders of runs (default: runs)")
