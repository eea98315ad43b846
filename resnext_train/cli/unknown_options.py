"""What to say about an option that a command does not have: the override to write, where it is a recipe's key.

Imports no torch.
"""

from __future__ import annotations

import difflib
from argparse import ArgumentParser
from collections.abc import Sequence

from resnext_train.config import all_keys, keys_named

_CUSTOMARY = {
    "amp": "train.precision",
    "checkpoint": "--resume",
    "ckpt": "--resume",
    "learning_rate": "optimizer.lr",
    "lr_scheduler": "schedule.name",
    "model": "model.arch",
    "nproc_per_node": "--procs",
    "num_workers": "data.workers",
    "opt": "optimizer.name",
    "optimizer": "optimizer.name",
    "pretrained": "model.weights",
    "sched": "schedule.name",
    "scheduler": "schedule.name",
    "test_only": "resnext eval",
    "wd": "optimizer.weight_decay",
}
"""What other trainers call keys, options and commands of ours that have another name."""


def refusal(unknown: Sequence[str], argv: Sequence[str], parser: ArgumentParser) -> str:
    """Say what to write instead of the `unknown` ones of a command's arguments, the first of them if there are more."""
    options = [word for word in unknown if word.startswith("-")]
    if not options:
        return f"unexpected {' '.join(unknown)[:200]!r}; --help shows what can be given"
    option, equals, value = options[0].partition("=")
    if not equals:
        value = _next(options[0], argv)
    name = option.strip("-").replace("-", "_")
    known = [known for action in parser._actions for known in action.option_strings if known.startswith("--")]
    takes_overrides = "section.key=value" in parser.format_usage()
    if takes_overrides and (keys := _keys_meant(name, known)):
        shown = f"{option} {value}".rstrip()[:200]
        words = [f"{key}={value or 'VALUE'}" if "." in key else key for key in keys]
        return f"there is no option {shown}; write {' or '.join(words)[:400]}"
    names = [option.strip("-").replace("-", "_") for option in known]
    near = [known[names.index(n)] for n in difflib.get_close_matches(name, names, n=1, cutoff=0.7)]
    return f"there is no option {option[:200]}; {f'did you mean {near[0]}?' if near else '--help lists all'}"


def _keys_meant(name: str, options: Sequence[str]) -> list[str]:
    """Return the keys, or else what is among our `options`, that stand for an option NAME of other trainers."""
    customary = _CUSTOMARY.get(name, "--")
    if customary in options or not customary.startswith("--"):
        return [customary]
    if name in all_keys():
        return [name]
    last_parts = [key.partition(".")[2] for key in all_keys()]
    near = difflib.get_close_matches(name, last_parts, n=1, cutoff=0.9)
    return keys_named(name) or [key for close in near for key in keys_named(close)]


def _next(option: str, argv: Sequence[str]) -> str:
    """Return the word behind `option` if it is a value."""
    place = list(argv).index(option) + 1 if option in argv else len(argv)
    following = argv[place] if place < len(argv) else ""
    return "" if (following.startswith("-") and not following[1:2].isdigit()) or "=" in following else following
