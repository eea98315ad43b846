"""All commands of `resnext`: their parsers, and the functions that run them. Imports no torch."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from resnext_train.cli import bench_parsers, parsers, prepare_parsers, sweep_parser
from resnext_train.cli.predict_parser import predict_arguments
from resnext_train.cli.report_parser import report_arguments


@dataclass(frozen=True)
class Command:
    """A command: its line in the help, its parser, and the two functions that run it."""

    summary: str
    add_arguments: Callable[[ArgumentParser], None]
    """A function of cli/parsers.py, or of another module of parsers."""
    read: str
    """MODULE:FUNCTION in cli/: from the parsed arguments to a checked request. Imports no torch."""
    run: str
    """MODULE:FUNCTION in cli/: carries out the request; returns an exit code, or None for 0."""
    many_processes: bool = False
    """Whether --procs N starts it as N ranks."""
    intermixed: bool = False
    """Whether overrides may stand anywhere among the options."""
    only_prints: bool = False
    """Whether its output is all that it does: a reader who leaves early has seen enough."""
    keeps_a_log: bool = False
    """Whether a run folder holds all that it prints, except in a dry run: then no state of the console ends it."""


@dataclass(frozen=True)
class Group:
    """Several commands under one name."""

    summary: str
    description: str
    commands: Mapping[str, Command | Group]


_PREPARE = {
    "pack": Command(
        "pack a folder of images", prepare_parsers.pack_arguments, "prepare_requests:read_pack", "prepare:pack"
    ),
    "imagenet": Command(
        "pack ImageNet straight from its archives",
        prepare_parsers.imagenet_arguments,
        "prepare_requests:read_imagenet",
        "prepare:imagenet",
    ),
    "check": Command(
        "decode every image and list what is bad",
        prepare_parsers.check_arguments,
        "prepare_requests:read_check",
        "prepare:check",
    ),
    "unpack": Command(
        "write a pack's images as files again",
        prepare_parsers.unpack_arguments,
        "prepare_requests:read_unpack",
        "prepare:unpack",
    ),
}

_BENCH = {
    "data": Command(
        "time the input pipeline on training images",
        bench_parsers.bench_data_arguments,
        "bench_requests:read_data",
        "bench:data",
        intermixed=True,
    ),
    "step": Command(
        "time a recipe's step, part by part, beside a bare loop",
        bench_parsers.bench_step_arguments,
        "bench_requests:read_step",
        "bench:step",
        many_processes=True,
        intermixed=True,
    ),
    "scaling": Command(
        "time a recipe's step on one process and on more",
        bench_parsers.bench_scaling_arguments,
        "bench_requests:read_scaling",
        "bench:scaling",
        intermixed=True,
    ),
}

RESNEXT = Group(
    "train and evaluate ResNeXt and ResNet",
    "Train and evaluate ResNeXt and ResNet on ImageNet, on CIFAR, or on any folder of images, as the papers did.",
    {
        "train": Command(
            "train a network from a recipe",
            parsers.train_arguments,
            "requests:read_train",
            "train:train",
            many_processes=True,
            intermixed=True,
            keeps_a_log=True,
        ),
        "sweep": Command(
            "train several recipes, with several seeds or values",
            sweep_parser.sweep_arguments,
            "sweep_requests:read_sweep",
            "sweep:sweep",
            intermixed=True,
        ),
        "runs": Command(
            "list runs: how far they are, and how good",
            sweep_parser.runs_arguments,
            "sweep_requests:read_runs_request",
            "runs:runs",
            only_prints=True,
        ),
        "report": Command(
            "show runs beside each other: results, seeds, tests, recipes",
            report_arguments,
            "report_requests:read_report",
            "report:report",
            intermixed=True,
            only_prints=True,
        ),
        "eval": Command(
            "evaluate a checkpoint",
            parsers.eval_arguments,
            "requests:read_eval",
            "eval:evaluate",
            many_processes=True,
            intermixed=True,
        ),
        "predict": Command(
            "classify images",
            predict_arguments,
            "predict_requests:read_predict",
            "predict:predict",
            intermixed=True,
        ),
        "info": Command(
            "list networks and recipes, their sizes and stages",
            parsers.info_arguments,
            "requests:read_info",
            "info:info",
            intermixed=True,
            only_prints=True,
        ),
        "export": Command(
            "write weights for other programs",
            parsers.export_arguments,
            "export_requests:read_export",
            "export:export",
        ),
        "prepare": Group(
            "pack images for fast reading, check and unpack them",
            "Pack images into a few large files that training reads fast; check images; unpack.",
            _PREPARE,
        ),
        "bench": Group(
            "measure how fast this machine feeds training, and trains",
            "Measure how fast this machine reads images and takes steps, and what more processes bring.",
            _BENCH,
        ),
        "verify": Command(
            "prove that a recipe resumes exactly",
            parsers.verify_arguments,
            "requests:read_verify",
            "verify:verify",
            intermixed=True,
        ),
    },
)
"""All commands. A new one has a parser and a reader in a module of parsers and of requests, and a module of its own."""


def find_command(words: Sequence[str]) -> Command | Group:
    """Return what `words` name: `RESNEXT` itself for none, a command for `("prepare", "pack")`."""
    found: Command | Group = RESNEXT
    for word in words:
        assert isinstance(found, Group)
        found = found.commands[word]
    return found
