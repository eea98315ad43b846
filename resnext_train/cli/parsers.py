"""The arguments of all commands, with their help. Imports no torch, so that help is quick.

Each function gives a parser its description, its arguments and its epilog, in which `{prog}` is the command's name.
"""

from __future__ import annotations

from argparse import Action, ArgumentParser, Namespace
from collections.abc import Mapping
from typing import Any

from resnext_train.checkpoint.stored_weights import CHOICES
from resnext_train.distributed.stop_signals import STOPPING
from resnext_train.export.export_formats import FORMATS


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
        help="run folder (default: runs/NAME; a shipped recipe's NAME has its folder in front, except imagenet/; where "
        "the command line changes the seed, -seedN is behind it)",
    )
    p.add_argument("--name", metavar="NAME", help="the run folder's name in runs/: the same as --out runs/NAME")
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
    add_procs(p)
    p.add_argument(
        "--dry-run", action="store_true", help="check all that the run needs, print what would be done, train nothing"
    )
    p.add_argument(
        "--profile",
        type=int,
        metavar="N",
        help="after five steps profile N with torch's profiler: trace.json.gz in the run folder, and a table",
    )
    add_overrides(
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
        "  {prog} --ckpt runs/a --ckpt runs/b --protocol ten_crop --out results"
    )
    p.add_argument(
        "--ckpt",
        action="append",
        metavar="PATH",
        help="a run folder, for its best checkpoint; a checkpoint or an export of resnext-train, or foreign weights; "
        "given several times, they make an ensemble, and each is counted alone, too",
    )
    add_choice_of_weights(p)
    add_recipe_of_weights(p)
    p.add_argument(
        "--classes",
        metavar="PATH",
        help="for foreign weights with more classes than the data: all their classes in order, as a file with one name "
        "per line or a folder with a folder per class",
    )
    p.add_argument(
        "--recalibrate-bn",
        type=int,
        metavar="N",
        help="first take the BatchNorm statistics anew from N training images",
    )
    p.add_argument(
        "--predictions",
        metavar="FILE",
        help="also write what each image was taken for, as .csv or .parquet",
    )
    p.add_argument(
        "--out",
        metavar="DIR",
        help="also write all there is to this folder: result, predictions, classes and confusions as tables, and the "
        "most confident mistakes as a picture",
    )
    p.add_argument("--json", metavar="FILE", help="also write the result to this file")
    add_procs(p)
    add_overrides(
        p,
        {
            ("--data",): "data.root",
            ("--protocol",): "eval.protocol",
            ("-b", "--batch-size"): "eval.batch_size",
            ("-j", "--workers"): "data.workers",
        },
    )


def add_recipe_of_weights(p: ArgumentParser) -> None:
    p.add_argument(
        "--config",
        metavar="NAME|PATH",
        help="recipe for foreign weights; for our own checkpoints it replaces all sections but the model",
    )


def add_choice_of_weights(p: ArgumentParser) -> None:
    p.add_argument(
        "--weights",
        choices=CHOICES,
        default="auto",
        help="of a checkpoint that holds the network's own weights (model) and their average over the run (ema); auto: "
        "those that were better in its evaluation, and where it has none, the average, once it has begun (default)",
    )


def add_procs(p: ArgumentParser) -> None:
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


def add_overrides(p: ArgumentParser, shortcuts: Mapping[tuple[str, ...], str]) -> None:
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
    p.add_argument("--classes", type=int, metavar="N", help="outputs of the classifier (default: by its data set)")


_FORMATS = """formats:
  safetensors   .safetensors: weights under torchvision's names; classes, preprocessing, recipe and result in the header
  pth           .pth, .pt: the same weights as a state dict that torch.load opens; the rest in NAME.json beside it
  onnx          .onnx: the network, from normalised "images" (N, 3, H, W) to "logits", for any number of images
  torch_export  .pt2: the same for torch.export.load
  hf            no suffix: a folder that timm loads, with a model card; upload it to a hub, or use it where it is

example:
  """


def export_arguments(p: ArgumentParser) -> None:
    p.description = (
        "Write a checkpoint's network for other programs, and check it: what is written is read back, by the program "
        "it is for where that is installed, and must give the same logits."
    )
    p.epilog = _FORMATS + "{prog} --ckpt runs/resnext50_32x4d --out resnext50.safetensors resnext50.onnx resnext50_hf"
    p.add_argument(
        "--ckpt",
        metavar="PATH",
        help="a run folder, for its best checkpoint; or a checkpoint or an export of resnext-train, or foreign weights",
    )
    add_choice_of_weights(p)
    p.add_argument("--config", metavar="NAME|PATH", help="recipe for foreign weights")
    p.add_argument("--out", required=True, nargs="+", metavar="PATH", help="files and folders to write, none existing")
    p.add_argument(
        "--format",
        metavar="FORMAT",
        help=f"where the suffix does not say it: {', '.join(FORMATS)} (default: that of the suffix)",
    )


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
    add_overrides(p, {("--data",): "data.root", ("-b", "--batch-size"): "train.batch_size"})
