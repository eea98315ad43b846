"""The commands, called in this process."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from resnext_train.cli.main import main

Command = Callable[[Sequence[str]], int]
"""Take the arguments behind the command's name, return the exit code."""

Refuses = Callable[..., str]
"""What the fixture `refuses` gives."""


def train(argv: Sequence[str]) -> int:
    return main(["train", *argv])


def evaluate(argv: Sequence[str]) -> int:
    return main(["eval", *argv])


def predict(argv: Sequence[str]) -> int:
    return main(["predict", *argv])


def info(argv: Sequence[str]) -> int:
    return main(["info", *argv])


def report(argv: Sequence[str]) -> int:
    return main(["report", *argv])


def export(argv: Sequence[str]) -> int:
    return main(["export", *argv])


def prepare(argv: Sequence[str]) -> int:
    return main(["prepare", *argv])


def bench(argv: Sequence[str]) -> int:
    return main(["bench", *argv])


def verify(argv: Sequence[str]) -> int:
    return main(["verify", *argv])


def error_line(command: str, sentence: str) -> str:
    """What a command prints when it refuses with `sentence`."""
    return f"resnext {command}: error: {sentence}\n"
