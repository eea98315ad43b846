"""The commands, called in this process."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from resnext_train.cli import bench as _bench
from resnext_train.cli import eval as _eval
from resnext_train.cli import export as _export
from resnext_train.cli import info as _info
from resnext_train.cli import prepare as _prepare
from resnext_train.cli import train as _train
from resnext_train.cli import verify as _verify

Command = Callable[[Sequence[str]], int]
"""Take the arguments behind the command's name, return the exit code."""

Refuses = Callable[..., str]
"""What the fixture `refuses` gives."""


def train(argv: Sequence[str]) -> int:
    return _train.main([*argv])


def evaluate(argv: Sequence[str]) -> int:
    return _eval.main([*argv])


def info(argv: Sequence[str]) -> int:
    return _info.main([*argv])


def export(argv: Sequence[str]) -> int:
    return _export.main([*argv])


def prepare(argv: Sequence[str]) -> int:
    return _prepare.main([*argv])


def bench(argv: Sequence[str]) -> int:
    return _bench.main([*argv])


def verify(argv: Sequence[str]) -> int:
    return _verify.main([*argv])


def error_line(command: str, sentence: str) -> str:
    """What a command prints when it refuses with `sentence`."""
    return f"resnext-{command}: error: {sentence}\n"
