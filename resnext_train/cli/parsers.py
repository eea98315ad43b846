"""The arguments of all commands, with their help. Imports no torch, so that help is quick.

Each function gives a parser its description, its arguments and its epilog, in which `{prog}` is the command's name.
"""

from __future__ import annotations

from argparse import Action, ArgumentParser, Namespace
from collections.abc import Mapping
from typing import Any

from resnext_train.bench import TIERS
from resnext_train.distributed.stop_signals import STOPPING
from resnext_train.prepare import DEFAULT_QUALITY, DEFAULT_SIZE


def train_arguments(p: ArgumentParser) -> None:
    p.description = "Train a network from a recipe, on one process or on many."
    first, *others = (s.name for s in STOPPING)
    p.epilog = (
        "8 GPUs:\n  {prog} --procs 8 --config resnext50_32x4d data.root=/path/to/imagenet\n\n"
        f"{', '.join([first, *others[:-1]])} and {others[-1]} (SIGINT is Ctrl-C) make a run save itself and stop, with "
        "exit code 75; the same command resumes it."
    )
    p.add_argument(
        "--config",
        metavar="NAME|PATH",
        help="a shipped recipe's name, or a path (default: that of the run to --resume)",
    )
    p.add_argument(
        "--out",
        "--output",
        metavar="DIR",
        help="run folder (default: runs/NAME; a shipped recipe's NAME has its folder in front, except imagenet/)",
    )
    p.add_argument(
        "--resume",
        nargs="?",
        default="auto",
        const="auto",
        metavar="auto|never|PATH",
        help="auto: continue the run in --out if there is one (default); never: only start a new one; "
        "PATH: continue the run of that folder there, or from that checkpoint in --out, with changes to the recipe if "
        "you override it",
    )
    _add_procs(p)
    p.add_argument(
        "--dry-run", action="store_true", help="check all that the run needs, print what would be done, train nothing"
    )
    p.add_argument(
        "--profile",
        type=int,
        metavar="N",
        help="after five steps profile N with torch's profiler: trace.json.gz in the run folder, and a table",
    )
    _add_overrides(
        p,
        {
            ("--epochs",): "train.epochs",
            ("-b", "--batch-size"): "train.batch_size",
            ("--lr",): "optimizer.lr",
            ("--seed",): "train.seed",
            ("--data",): "data.root",
            ("-j", "--workers"): "data.workers",
        },
    )


def eval_arguments(p: ArgumentParser) -> None:
    p.description = (
        "Evaluate a checkpoint, or several as an ensemble: every image exactly once, on any number of processes."
    )
    p.epilog = (
        "examples:\n  {prog} --ckpt runs/resnext50_32x4d --data /path/to/imagenet\n"
        "  {prog} --ckpt runs/a runs/b --protocol ten_crop --out results"
    )
    p.add_argument(
        "--ckpt",
        nargs="+",
        metavar="PATH",
        help="a run folder, for its best checkpoint; or a checkpoint of resnext-train, or foreign weights; several "
        "make an ensemble, and are counted alone, too",
    )
    p.add_argument(
        "--config",
        metavar="NAME|PATH",
        help="recipe for foreign weights; for our own checkpoints it replaces all sections but the model",
    )
    p.add_argument(
        "--classes",
        metavar="PATH",
        help="for foreign weights with more classes than the data: all their classes in order, as a file with one name "
        "per line or a folder with a folder per class",
    )
    p.add_argument(
        "--recalibrate-bn",
        type=int,
        default=0,
        metavar="N",
        help="first take the BatchNorm statistics anew from N training images",
    )
    p.add_argument("--json", metavar="FILE", help="also write the result to this file")
    _add_procs(p)
    _add_overrides(
        p,
        {
            ("--data",): "data.root",
            ("--protocol",): "eval.protocol",
            ("-b", "--batch-size"): "eval.batch_size",
            ("-j", "--workers"): "data.workers",
        },
    )


def _add_procs(p: ArgumentParser) -> None:
    p.add_argument("--procs", "--gpus", type=int, default=1, metavar="N", help="processes on this host (default: 1)")


class _Shortcut(Action):
    """Append the override that an option stands for to the overrides by options."""

    def __call__(self, parser: ArgumentParser, namespace: Namespace, value: Any, option: str | None = None) -> None:
        source = ["data.source=folder"] if self.const == "data.root" else []
        namespace.shortcuts = [*namespace.shortcuts, *source, f"{self.const}={value}"]


_METAVARS = {
    "train.epochs": "N",
    "train.batch_size": "N",
    "eval.batch_size": "N",
    "optimizer.lr": "X",
    "train.seed": "N",
    "data.root": "DIR",
    "eval.protocol": "NAME",
    "data.workers": "N",
}
"""What stands for the value of a key that has an option of its own."""


def _add_overrides(p: ArgumentParser, shortcuts: Mapping[tuple[str, ...], str]) -> None:
    """Add overrides, and options that stand for some: names by which other trainers call them."""
    p.add_argument("overrides", nargs="*", metavar="section.key=value", help="replace a value of the recipe")
    add_shortcuts(p, shortcuts)


def add_shortcuts(p: ArgumentParser, shortcuts: Mapping[tuple[str, ...], str]) -> None:
    """Add options that stand for overrides."""
    p.set_defaults(shortcuts=[])
    for options, key in shortcuts.items():
        value = _METAVARS[key]
        text = f"the same as {key}={value}"
        if key == "data.root":
            text = "the same as data.source=folder data.root=DIR, a folder with train/ and val/"
        p.add_argument(*options, action=_Shortcut, const=key, dest="shortcuts", metavar=value, help=text)


def info_arguments(p: ArgumentParser) -> None:
    p.description = (
        "Parameters, multiply-adds and stages of a network; without a network, a list of all shipped recipes."
    )
    examples = ("resnext50_32x4d", "--config smoke", "--match resnet50 --cardinality 1 2 4 8 32")
    p.epilog = "\n".join(("examples:", *(f"  {{prog}} {example}" for example in examples)))
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


def export_arguments(p: ArgumentParser) -> None:
    p.description = "Write a checkpoint's weights under torchvision's names, and check them by reading them back."
    p.epilog = "example:\n  {prog} --ckpt runs/resnext50_32x4d --out resnext50.safetensors"
    p.add_argument(
        "--ckpt",
        metavar="PATH",
        help="a run folder, for its best checkpoint; or a checkpoint of resnext-train, or foreign weights",
    )
    p.add_argument("--config", metavar="NAME|PATH", help="recipe for foreign weights")
    p.add_argument(
        "--out",
        required=True,
        nargs="+",
        metavar="FILE",
        help="files to write: .safetensors, or .pth or .pt for a state dict that torch.load opens",
    )


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
    _add_overrides(p, {("--data",): "data.root", ("-j", "--workers"): "data.workers"})


def bench_step_arguments(p: ArgumentParser) -> None:
    p.description = (
        "Measure a recipe's optimizer step on this machine, part by part, on images in memory and in turns with a bare "
        "training loop: images/s, milliseconds, launches, memory, and the share of the device's arithmetic and "
        "bandwidth. Needs no data."
    )
    p.epilog = "example:\n  {prog} --config resnext50_32x4d train.precision=bf16"
    p.add_argument("--config", required=True, metavar="NAME|PATH", help="the recipe: network, crop, batch, precision")
    _add_rounds(p)
    _add_procs(p)
    _add_json(p)
    _add_overrides(p, {("-b", "--batch-size"): "train.batch_size"})


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
    _add_overrides(p, {("-b", "--batch-size"): "train.batch_size"})


def _add_rounds(p: ArgumentParser) -> None:
    p.add_argument("--rounds", type=int, default=5, metavar="N", help="measured passes (default: 5)")


def _add_json(p: ArgumentParser) -> None:
    p.add_argument("--json", metavar="FILE", help="also write all measurements to this file")


def verify_arguments(p: ArgumentParser) -> None:
    p.description = (
        "Run the first steps of a recipe twice, once undisturbed and once killed (SIGKILL) and resumed repeatedly, and "
        "compare all tensors and values of both last checkpoints and all logged steps and epochs, bit by bit. On CPUs "
        "in fp32 they are equal; on GPUs the runs take train.deterministic=true, unless it is overridden."
    )
    p.epilog = "example:\n  {prog} --config smoke --steps 20 --kills 3 --procs 2"
    p.add_argument("--config", required=True, metavar="NAME|PATH", help="a shipped recipe's name, or a path")
    p.add_argument("--steps", type=int, default=20, metavar="N", help="steps to run, 2 at least (default: 20)")
    p.add_argument("--kills", type=int, default=3, metavar="N", help="kills of the second run, 1 at least (default: 3)")
    p.add_argument("--procs", "--gpus", type=int, default=1, metavar="N", help="training processes (default: 1)")
    p.add_argument("--seed", type=int, default=0, metavar="N", help="decides when to kill (default: 0)")
    p.add_argument("--out", metavar="DIR", help="keep both runs there (default: they are removed)")
    _add_overrides(p, {("--data",): "data.root", ("-b", "--batch-size"): "train.batch_size"})


_TIERS = """tiers:
  exact     the same pixels, but a JPEG can be decoded in part, which is faster, if jpegtran (libjpeg-turbo) is there
  resized   JPEGs whose short side is at most --size: smaller and faster, and lossy
  raw       pixels whose short side is at most --size, not compressed: fastest and largest, and lossy

Give a killed command again to resume it.

example:
  """


def pack_arguments(p: ArgumentParser) -> None:
    p.description = (
        "Pack a folder of images: one with a folder per class, a data root that holds train/ and val/, Tiny-ImageNet "
        "as it is published, or a .csv table of path,label."
    )
    p.epilog = _TIERS + "{prog} /data/imagenet /data/imagenet-pack --tier exact"
    p.add_argument("source", metavar="SRC", help="the images, which are only read")
    p.add_argument("out", metavar="DST", help="folder to write to; holds train/ and val/ if SRC does")
    _add_pack_options(p)


def imagenet_arguments(p: ArgumentParser) -> None:
    p.description = "Pack ImageNet 2012 straight from its archives; nothing is unpacked to the disk in between."
    p.epilog = (
        _TIERS + "{prog} --train-tar ILSVRC2012_img_train.tar --val-tar ILSVRC2012_img_val.tar \\\n"
        "    --devkit ILSVRC2012_devkit_t12.tar.gz --out /data/imagenet-pack"
    )
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


def check_arguments(p: ArgumentParser) -> None:
    p.description = "Decode every image of a folder or pack and list those that are bad (exit code 1) or odd."
    p.epilog = "example:\n  {prog} /data/imagenet"
    p.add_argument("path", metavar="PATH", help="images as for pack, or a pack, or a folder of packs train/ and val/")
    _add_workers(p)


def unpack_arguments(p: ArgumentParser) -> None:
    p.description = "Write a pack's images as files under their old names; arrays of the raw tier become PNG files."
    p.epilog = "example:\n  {prog} /data/imagenet-pack /data/imagenet-again"
    p.add_argument("source", metavar="PACK", help="a pack, or a folder of packs train/ and val/")
    p.add_argument("out", metavar="OUT", help="a folder that is new or empty")
