"""The command `resnext`: the parsers of all its commands, and how one is run. Imports no torch: help is quick."""

from __future__ import annotations

import difflib
import sys
from argparse import SUPPRESS, ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from resnext_train import __version__
from resnext_train.bench import TIERS
from resnext_train.cli.run_command import run_command
from resnext_train.distributed.rank import launcher_pid
from resnext_train.distributed.stop_signals import STOPPING, stop_with_parent
from resnext_train.prepare import DEFAULT_QUALITY, DEFAULT_SIZE


@dataclass(frozen=True)
class Command:
    """A command: its line in the help, its parser, and the two functions that run it."""

    summary: str
    add_arguments: Callable[[ArgumentParser], None]
    """Gives the parser its description and arguments. `{prog}` in its epilog stands for the command's name."""
    read: str
    """Function of cli/requests.py: from the parsed arguments to a checked request, without torch."""
    run: str
    """MODULE:FUNCTION in cli/: carries out the request; returns an exit code, or None for 0."""
    many_processes: bool = False
    """Whether --procs N starts it as N ranks."""
    only_prints: bool = False
    """Whether its output is all that it does: a reader who leaves early has seen enough."""


@dataclass(frozen=True)
class Group:
    """Several commands under one name."""

    summary: str
    description: str
    commands: Mapping[str, Command | Group]


def _train_arguments(p: ArgumentParser) -> None:
    p.description = "Train a network from a recipe, on one process or on many."
    first, *others = (s.name for s in STOPPING)
    p.epilog = (
        "8 GPUs: {prog} --procs 8 --config resnext50_32x4d data.root=/path/to/imagenet. "
        f"{', '.join([first, *others[:-1]])} and {others[-1]} (SIGINT is Ctrl-C) make a run save itself and stop, with "
        "exit code 75; the same command resumes it."
    )
    p.add_argument("--config", required=True, metavar="NAME|PATH", help="a shipped recipe's name, or a path")
    p.add_argument("--out", metavar="DIR", help="run folder (default: runs/<recipe name>)")
    p.add_argument(
        "--resume",
        default="auto",
        metavar="auto|never|PATH",
        help="auto: continue the run in --out if there is one (default); never: only start a new one; "
        "PATH: continue from that checkpoint, with changes to the recipe if you override it",
    )
    _add_procs(p)
    p.add_argument("--dry-run", action="store_true", help="find the data, print what would be done, train nothing")
    _add_overrides(p)


def _eval_arguments(p: ArgumentParser) -> None:
    p.description = "Evaluate a checkpoint: every image exactly once, on any number of processes."
    p.epilog = "example: {prog} --ckpt runs/resnext50_32x4d/checkpoints/best.pt --data /path/to/imagenet"
    p.add_argument("--ckpt", required=True, metavar="PATH", help="a checkpoint of resnext-train, or foreign weights")
    p.add_argument(
        "--config",
        metavar="NAME|PATH",
        help="recipe for foreign weights; for our own checkpoints it replaces all sections but the model",
    )
    p.add_argument("--data", metavar="DIR", help="folder with val/, or of classes (default: the recipe's data)")
    p.add_argument(
        "--classes",
        metavar="PATH",
        help="for foreign weights with more classes than the data: all their classes in order, as a file with one name "
        "per line or a folder with a folder per class",
    )
    p.add_argument("--json", metavar="FILE", help="also write the result to this file")
    _add_procs(p)
    _add_overrides(p)


def _add_procs(p: ArgumentParser) -> None:
    p.add_argument("--procs", type=int, default=1, metavar="N", help="processes on this host (default: 1)")


def _add_overrides(p: ArgumentParser) -> None:
    p.add_argument("overrides", nargs="*", metavar="section.key=value", help="replace a value of the recipe")


def _info_arguments(p: ArgumentParser) -> None:
    p.description = (
        "Parameters, multiply-adds and stages of a network; without a network, a list of all shipped recipes."
    )
    p.epilog = (
        "examples: {prog} resnext50_32x4d; {prog} --config smoke; {prog} --match resnet50 --cardinality 1 2 4 8 32"
    )
    p.add_argument(
        "network",
        nargs="*",
        metavar="NETWORK | model.key=value",
        help="a network's or recipe's name, such as resnext50_32x4d, and hyper-parameters, such as model.form=a",
    )
    p.add_argument("--config", metavar="NAME|PATH", help="a recipe, whose network is described")
    p.add_argument("--match", metavar="NETWORK", help="find the base width that keeps this network's complexity")
    p.add_argument("--cardinality", type=int, nargs="+", metavar="C", help="for --match: the cardinality, or several")
    p.add_argument("--size", type=int, metavar="PIXELS", help="height and width of an image (default: the network's)")
    p.add_argument("--classes", type=int, metavar="N", help="outputs of the classifier (default: the data set's)")


def _export_arguments(p: ArgumentParser) -> None:
    p.description = "Write a checkpoint's weights under torchvision's names, and check them by reading them back."
    p.epilog = "example: {prog} --ckpt runs/resnext50_32x4d/checkpoints/best.pt --out resnext50.safetensors"
    p.add_argument("--ckpt", required=True, metavar="PATH", help="a checkpoint of resnext-train, or foreign weights")
    p.add_argument("--config", metavar="NAME|PATH", help="recipe for foreign weights")
    p.add_argument(
        "--out",
        required=True,
        nargs="+",
        metavar="FILE",
        help="files to write: .safetensors, or .pth or .pt for a state dict that torch.load opens",
    )


def _bench_arguments(p: ArgumentParser) -> None:
    p.description = (
        "Measure how fast this machine reads a recipe's training images, from a folder and packed: as uint8 with one "
        "loader process and with all, and as normalised floats with colours in one process."
    )
    p.epilog = "example: {prog} data --config resnext50_32x4d --data /path/to/imagenet --baseline"
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
    _add_overrides(p)


def _verify_arguments(p: ArgumentParser) -> None:
    p.description = (
        "Run the first steps of a recipe twice, once undisturbed and once killed (SIGKILL) and resumed repeatedly, and "
        "compare all tensors and values of both last checkpoints and all logged steps and epochs, bit by bit. On CPUs "
        "in fp32 they are equal; on GPUs only if the GPU libraries are deterministic."
    )
    p.epilog = "example: {prog} --config smoke --steps 20 --kills 3 --procs 2"
    p.add_argument("--config", required=True, metavar="NAME|PATH", help="a shipped recipe's name, or a path")
    p.add_argument("--steps", type=int, default=20, metavar="N", help="steps to run, 2 at least (default: 20)")
    p.add_argument("--kills", type=int, default=3, metavar="N", help="kills of the second run, 1 at least (default: 3)")
    p.add_argument("--procs", type=int, default=1, metavar="N", help="training processes (default: 1)")
    p.add_argument("--seed", type=int, default=0, metavar="N", help="decides when to kill (default: 0)")
    p.add_argument("--out", metavar="DIR", help="keep both runs there (default: they are removed)")
    _add_overrides(p)


_TIERS = """tiers:
  exact     the same pixels, but a JPEG can be decoded in part, which is faster, if jpegtran (libjpeg-turbo) is there
  resized   JPEGs whose short side is at most --size: smaller and faster, and lossy
  raw       pixels whose short side is at most --size, not compressed: fastest and largest, and lossy

Give a killed command again to resume it.

example: """


def _pack_arguments(p: ArgumentParser) -> None:
    p.description = (
        "Pack a folder of images: one with a folder per class, a data root that holds train/ and val/, Tiny-ImageNet\n"
        "as it is published, or a .csv table of path,label."
    )
    p.epilog = _TIERS + "{prog} /data/imagenet /data/imagenet-pack --tier exact"
    p.formatter_class = RawDescriptionHelpFormatter
    p.add_argument("source", metavar="SRC", help="the images, which are only read")
    p.add_argument("out", metavar="DST", help="folder to write to; holds train/ and val/ if SRC does")
    _add_pack_options(p)


def _imagenet_arguments(p: ArgumentParser) -> None:
    p.description = "Pack ImageNet 2012 straight from its archives; nothing is unpacked to the disk in between."
    p.epilog = (
        _TIERS + "{prog} --train-tar ILSVRC2012_img_train.tar --val-tar ILSVRC2012_img_val.tar \\\n"
        "    --devkit ILSVRC2012_devkit_t12.tar.gz --out /data/imagenet-pack"
    )
    p.formatter_class = RawDescriptionHelpFormatter
    p.add_argument("--train-tar", metavar="TAR", help="ILSVRC2012_img_train.tar")
    p.add_argument("--val-tar", metavar="TAR", help="ILSVRC2012_img_val.tar; its labels come from one of the next two")
    p.add_argument("--devkit", metavar="TAR.GZ", help="ILSVRC2012_devkit_t12.tar.gz, also for classes in plain words")
    p.add_argument("--val-wnids", metavar="FILE", help="a text file with a class (WNID) a line, one per image of val")
    p.add_argument("--out", required=True, metavar="DIR", help="folder in which train/ and val/ are made")
    _add_pack_options(p)


def _add_pack_options(p: ArgumentParser) -> None:
    p.add_argument("--tier", choices=["exact", "resized", "raw"], default="exact", help="see below (default: exact)")
    p.add_argument(
        "--size", type=int, metavar="N", help=f"resized, raw: short side in pixels (default: {DEFAULT_SIZE})"
    )
    p.add_argument(
        "--quality", type=int, metavar="Q", help=f"resized: JPEG quality, 1 to 100 (default: {DEFAULT_QUALITY})"
    )
    p.add_argument(
        "--verify",
        default="all",
        metavar="all|N",
        help="compare every rewritten JPEG with its original, or every Nth only (default: all)",
    )
    _add_workers(p)


def _add_workers(p: ArgumentParser) -> None:
    p.add_argument("--workers", type=int, metavar="W", help="processes (default: all usable cores)")


def _check_arguments(p: ArgumentParser) -> None:
    p.description = "Decode every image of a folder or pack and list those that are bad (exit code 1) or odd."
    p.epilog = "example: {prog} /data/imagenet"
    p.add_argument("path", metavar="PATH", help="images as for pack, or a pack, or a folder of packs train/ and val/")
    _add_workers(p)


def _unpack_arguments(p: ArgumentParser) -> None:
    p.description = "Write a pack's images as files under their old names; arrays of the raw tier become PNG files."
    p.epilog = "example: {prog} /data/imagenet-pack /data/imagenet-again"
    p.add_argument("source", metavar="PACK", help="a pack, or a folder of packs train/ and val/")
    p.add_argument("out", metavar="OUT", help="a folder that is new or empty")


_PREPARE = {
    "pack": Command("pack a folder of images", _pack_arguments, "read_pack", "prepare:pack"),
    "imagenet": Command(
        "pack ImageNet straight from its archives", _imagenet_arguments, "read_imagenet", "prepare:imagenet"
    ),
    "check": Command("decode every image and list what is bad", _check_arguments, "read_check", "prepare:check"),
    "unpack": Command("write a pack's images as files again", _unpack_arguments, "read_unpack", "prepare:unpack"),
}

RESNEXT = Group(
    "train and evaluate ResNeXt and ResNet",
    "Train and evaluate ResNeXt and ResNet on ImageNet, on CIFAR, or on any folder of images, as the papers did.",
    {
        "train": Command(
            "train a network from a recipe", _train_arguments, "read_train", "train:train", many_processes=True
        ),
        "eval": Command("evaluate a checkpoint", _eval_arguments, "read_eval", "eval:evaluate", many_processes=True),
        "info": Command(
            "list networks and recipes, their sizes and stages",
            _info_arguments,
            "read_info",
            "info:info",
            only_prints=True,
        ),
        "export": Command("write weights for other programs", _export_arguments, "read_export", "export:export"),
        "prepare": Group(
            "pack images for fast reading, check and unpack them",
            "Pack images into a few large files that training reads fast; check images; unpack.",
            _PREPARE,
        ),
        "bench": Command("measure how fast this machine feeds training", _bench_arguments, "read_bench", "bench:bench"),
        "verify": Command("prove that a recipe resumes exactly", _verify_arguments, "read_verify", "verify:verify"),
    },
)
"""All commands. A new one is a parser here, a reader in cli/requests.py and a module of its own."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run `resnext` and return its exit code, see `run_command`."""
    return _choose("resnext", (), sys.argv[1:] if argv is None else argv)


def train(argv: Sequence[str] | None = None) -> int:
    """Run `resnext-train`: `resnext train` by a name of its own."""
    return _choose("resnext-train", ("train",), sys.argv[1:] if argv is None else argv)


def evaluate(argv: Sequence[str] | None = None) -> int:
    """Run `resnext-eval`: `resnext eval` by a name of its own."""
    return _choose("resnext-eval", ("eval",), sys.argv[1:] if argv is None else argv)


def find_command(words: Sequence[str]) -> Command | Group:
    """Return what `words` name: `RESNEXT` itself for none, a command for `("prepare", "pack")`."""
    found: Command | Group = RESNEXT
    for word in words:
        assert isinstance(found, Group)
        found = found.commands[word]
    return found


def _choose(prog: str, words: tuple[str, ...], argv: Sequence[str]) -> int:
    """Run the command that `words` name, on `argv`; in a group, the one that `argv` goes on to name."""
    command = find_command(words)
    if isinstance(command, Command):
        # Overrides may stand anywhere among the options.
        args = parser_of(prog, command).parse_intermixed_args(argv)
        return run_command(prog, lambda: _run(command, args, [*words, *argv]), command.only_prints)
    parser = _group_parser(prog, command)
    if not argv:
        parser.print_help(sys.stderr)
        return 2
    name, *rest = argv
    if name in command.commands:
        return _choose(f"{prog} {name}", (*words, name), rest)
    parser.parse_args([name])  # ends here for --help, --version and unknown options
    near = difflib.get_close_matches(name, command.commands, n=1)
    hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(command.commands)}"
    print(f"{prog}: error: no command {name!r}; {hint}", file=sys.stderr)
    return 2


def parser_of(prog: str, command: Command) -> ArgumentParser:
    """Return the parser of a command that is called `prog`."""
    parser = ArgumentParser(prog=prog)
    command.add_arguments(parser)
    assert parser.epilog
    parser.epilog = parser.epilog.replace("{prog}", prog)
    return parser


def _group_parser(prog: str, group: Group) -> ArgumentParser:
    width = max(map(len, group.commands))
    lines = [f"  {name:{width}}  {command.summary}" for name, command in group.commands.items()]
    parser = ArgumentParser(
        prog=prog,
        usage=f"{prog} COMMAND ...",
        description=group.description,
        epilog="commands:\n" + "\n".join(lines) + f"\n\n{prog} COMMAND --help shows its options and an example.",
        formatter_class=RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"resnext-train {__version__}")
    parser.add_argument("command", nargs="?", help=SUPPRESS)
    return parser


def _run(command: Command, args: Namespace, arguments: Sequence[str]) -> int | None:
    """Check the arguments, which needs no torch, so that most mistakes are reported at once; then carry them out."""
    launcher = launcher_pid()
    if launcher is not None:
        stop_with_parent(launcher)
    request: Any = getattr(import_module("resnext_train.cli.requests"), command.read)(args)
    if command.many_processes and args.procs > 1 and launcher is None:
        launch: Any = import_module("resnext_train.distributed.launcher").launch
        return int(launch(arguments, args.procs, request.patience_seconds))
    module, function = command.run.split(":")
    code: int | None = getattr(import_module(f"resnext_train.cli.{module}"), function)(request)
    return code
