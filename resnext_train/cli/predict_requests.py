"""What `resnext predict` is asked for, read and checked before torch is imported."""

from __future__ import annotations

import os
import re
from argparse import Namespace

from resnext_train.cli.requests import check_output, given_recipe, named_checkpoint
from resnext_train.distributed.rank import this_rank
from resnext_train.errors import InputError
from resnext_train.inference.prediction import PredictionRequest


def read_predict(args: Namespace) -> PredictionRequest:
    """Tell images from overrides, and check that the checkpoint is there and the files can be written."""
    if args.top < 1:
        raise InputError(f"--top {args.top}: must be at least 1")
    if (processes := this_rank().world_size) > 1:
        raise InputError(f"predict is one process, and a launcher has started {processes}; start it by itself")
    given = [word for word in args.images if _is_override(word)]
    words = tuple(word for word in args.images if word not in given)
    checkpoint = named_checkpoint(args.ckpt)
    if not words:
        raise InputError("name images to classify: files, folders, patterns, or - for a list of paths on stdin")
    overrides = [*args.shortcuts, *given]
    recipe = given_recipe(args.config, overrides)
    check_output("--csv", args.csv)
    check_output("--json", args.json)
    if args.csv and args.json and os.path.realpath(args.csv) == os.path.realpath(args.json):
        raise InputError(f"--csv and --json are both {args.csv}; name two files")
    return PredictionRequest(
        checkpoint, words, args.top, recipe, tuple(overrides), args.weights, args.classes, csv=args.csv, json=args.json
    )


def _is_override(word: str) -> bool:
    """Return whether a word is `section.key=value`, and not the name of a file."""
    return re.match(r"[a-z]+\.\w+=", word) is not None and not os.path.lexists(word)
