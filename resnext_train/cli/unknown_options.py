"""What to say about an option that a command does not have: the override to write, where it is a recipe's key.

Imports no torch.
"""

from __future__ import annotations

import difflib
from argparse import ArgumentParser
from collections.abc import Sequence
from itertools import takewhile

from resnext_train.config import all_keys, foreign_names, keys_meant, keys_named, suggested

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

_OF_SWEEPS = {
    "seed": "write --seeds, as in --seeds 3 or --seeds 0:3",
    "name": "a sweep names its runs by what differs; --out DIR is the folder of all",
    "resume": "the same sweep goes on where it stopped",
}
"""What is said of options of `resnext train` that `resnext sweep` has not."""

_ANSWERS = {
    **foreign_names.ADVICE,
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
    values = [value] if equals else _following(given, argv)
    name = option.strip("-").replace("-", "_")
    known = [known for action in parser._actions for known in action.option_strings if known.startswith("--")]
    if "--seeds" in known and name in _OF_SWEEPS:
        return f"there is no option {option}; {_OF_SWEEPS[name]}"
    if "section.key=value" in parser.format_usage():
        if name in _ANSWERS:
            return f"there is no option {option}; {_ANSWERS[name]}"
        if keys := _keys_meant(name, known):
            shown = " ".join([option, *values])[:200]
            words = [suggested(key, values) if "." in key else " ".join([key, *values]) for key in keys]
            return f"there is no option {shown}; write {' or '.join(words)[:400]}"
    names = [option.strip("-").replace("-", "_") for option in known]
    near = [known[names.index(n)] for n in difflib.get_close_matches(name, names, n=1, cutoff=0.7)]
    return f"there is no option {option[:200]}; {f'did you mean {near[0]}?' if near else '--help lists all'}"


def _keys_meant(name: str, options: Sequence[str]) -> list[str]:
    """Return the keys, or else the one of our `options`, that stand for an option NAME of other trainers."""
    if meant := [option for option in _OPTIONS.get(name, ()) if option in options]:
        return meant[:1]
    if name in all_keys():
        return [name]
    last_parts = [key.partition(".")[2] for key in all_keys()]
    near = difflib.get_close_matches(name, last_parts, n=1, cutoff=0.9)
    return keys_meant(name) or [key for close in near for key in keys_named(close)]


def _following(option: str, argv: Sequence[str]) -> list[str]:
    """Return the words behind `option` that are its values: one word, or several numbers."""
    behind = list(argv)[argv.index(option) + 1 :] if option in argv else []
    words = list(takewhile(lambda word: "=" not in word and (not word.startswith("-") or _is_number(word)), behind))
    numbers = list(takewhile(_is_number, words))
    return numbers or words[:1]


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True
