"""What to say about an option that a command does not have: the override to write, where it is a recipe's key.

Imports no torch.
"""

from __future__ import annotations

import difflib
from argparse import ArgumentParser
from collections.abc import Sequence

from resnext_train.config import all_keys, keys_named

_KEYS = {
    "amp": "train.precision",
    "data_dir": "data.root",
    "data_path": "data.root",
    "gamma": "schedule.factor",
    "image_size": "augment.size",
    "img_size": "augment.size",
    "learning_rate": "optimizer.lr",
    "lr_gamma": "schedule.factor",
    "lr_scheduler": "schedule.name",
    "max_epochs": "train.epochs",
    "model": "model.arch",
    "model_ema_decay": "ema.decay",
    "model_ema_steps": "ema.every",
    "num_epochs": "train.epochs",
    "num_workers": "data.workers",
    "opt": "optimizer.name",
    "optimizer": "optimizer.name",
    "print_freq": "log.every",
    "sched": "schedule.name",
    "scheduler": "schedule.name",
    "torchcompile": "train.compile",
    "use_deterministic_algorithms": "train.deterministic",
    "warmup_epochs": "schedule.warmup",
    "wd": "optimizer.weight_decay",
}
"""What other trainers call keys of ours that have another name."""

_OPTIONS = {
    "c": ("--config",),
    "cfg": ("--config",),
    "checkpoint": ("--ckpt", "--resume"),
    "ckpt": ("--resume",),
    "nproc_per_node": ("--procs",),
    "output_dir": ("--out",),
    "world_size": ("--procs",),
}
"""What they call options of ours; the first that the command has is meant."""

_ANSWERS = {
    "channels_last": "it is the default; train.layout=contiguous is the other one",
    "device": "a GPU is used where there is one",
    "gpu": "a GPU is used where there is one; --gpus N is for several",
    "pretrained": "write model.weights=FILE, with a file of weights",
    "evaluate": "use resnext eval",
    "test_only": "use resnext eval",
}
"""What is said of options that stand for neither."""


def refusal(unknown: Sequence[str], argv: Sequence[str], parser: ArgumentParser) -> list[str]:
    """Say what to write instead of each of the `unknown` ones of a command's arguments."""
    options = [word for word in unknown if word.startswith("-")]
    if not options:
        return [f"unexpected {' '.join(unknown)[:200]!r}; --help shows what can be given"]
    return [_answer(option, argv, parser) for option in dict.fromkeys(options)]


def _answer(given: str, argv: Sequence[str], parser: ArgumentParser) -> str:
    option, equals, value = given.partition("=")
    if not equals:
        value = _next(given, argv)
    name = option.strip("-").replace("-", "_")
    known = [known for action in parser._actions for known in action.option_strings if known.startswith("--")]
    if "section.key=value" in parser.format_usage():
        if name in _ANSWERS:
            return f"there is no option {option}; {_ANSWERS[name]}"
        if keys := _keys_meant(name, known):
            shown = f"{option} {value}".rstrip()[:200]
            words = [f"{key}={value or 'VALUE'}" if "." in key else f"{key} {value}".rstrip() for key in keys]
            return f"there is no option {shown}; write {' or '.join(words)[:400]}"
    names = [option.strip("-").replace("-", "_") for option in known]
    near = [known[names.index(n)] for n in difflib.get_close_matches(name, names, n=1, cutoff=0.7)]
    return f"there is no option {option[:200]}; {f'did you mean {near[0]}?' if near else '--help lists all'}"


def _keys_meant(name: str, options: Sequence[str]) -> list[str]:
    """Return the keys, or else the one of our `options`, that stand for an option NAME of other trainers."""
    if meant := [option for option in _OPTIONS.get(name, ()) if option in options]:
        return meant[:1]
    if name in _KEYS:
        return [_KEYS[name]]
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
