"""The arguments of `resnext predict`, with their help. Imports no torch."""

from __future__ import annotations

from argparse import ArgumentParser

from resnext_train.cli.parsers import add_choice_of_weights, add_recipe_of_weights, add_shortcuts


def predict_arguments(p: ArgumentParser) -> None:
    p.description = (
        "Classify images: print the best classes of each, or write them to a file, in the order given. The network "
        "sees the same pixels as in evaluation, by the protocol in the checkpoint's recipe."
    )
    p.epilog = (
        "examples:\n  {prog} --ckpt runs/resnext50_32x4d cat.jpg dog.jpg\n"
        "  {prog} --ckpt runs/resnext50_32x4d /path/to/photos --csv predictions.csv\n\n"
        "Exit code 1: some images could not be read; they are named on stderr, and have an error in the files."
    )
    p.add_argument(
        "--ckpt",
        metavar="PATH",
        help="a run folder, for its best checkpoint; a checkpoint or an export of resnext-train, or foreign weights",
    )
    p.add_argument(
        "images",
        nargs="*",
        metavar="IMAGE | FOLDER | PATTERN | - | section.key=value",
        help="images; folders, whose images at any depth are taken; patterns such as 'photos/**/*.jpg'; -: paths on "
        "stdin, one per line, or with zero bytes between them; and overrides that replace values of the recipe",
    )
    p.add_argument("--top", type=int, default=5, metavar="K", help="classes of each image (default: 5)")
    p.add_argument("--csv", metavar="FILE", help="write a line per image to this file")
    p.add_argument("--json", metavar="FILE", help="write an object per image to this file, in one list")
    add_choice_of_weights(p)
    add_recipe_of_weights(p)
    p.add_argument(
        "--classes",
        metavar="PATH",
        help="the classes of foreign weights in order, as a file with one name per line or a folder with a folder per "
        "class (default: their numbers)",
    )
    add_shortcuts(
        p,
        {
            ("--protocol",): "eval.protocol",
            ("-b", "--batch-size"): "eval.batch_size",
            ("-j", "--workers"): "data.workers",
        },
    )
