"""The command `resnext`: how one of its commands is found and run. Imports no torch."""

from __future__ import annotations

import difflib
import gc
import shutil
import sys
import textwrap
from argparse import SUPPRESS, ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from importlib import import_module
from typing import Any, NoReturn

from resnext_train import __version__
from resnext_train.cli.command_table import Command, Group, find_command
from resnext_train.cli.console_streams import UnwrittenOutputError, lose_what_stdout_does_not_take, open_console
from resnext_train.cli.run_command import run_command
from resnext_train.distributed.process_limits import allow_open_files, check_process_limits
from resnext_train.distributed.rank import launcher_pid, this_rank
from resnext_train.distributed.slurm_step import leave_slurm_step
from resnext_train.distributed.stop_signals import ended_in_order, join_launcher
from resnext_train.errors import InputError


def main(argv: Sequence[str] | None = None) -> int:
    """Run `resnext` and return its exit code, see `run_command`."""
    return _start("resnext", (), argv)


def train(argv: Sequence[str] | None = None) -> int:
    """Run `resnext-train`: `resnext train` by a name of its own."""
    return _start("resnext-train", ("train",), argv)


def evaluate(argv: Sequence[str] | None = None) -> int:
    """Run `resnext-eval`: `resnext eval` by a name of its own."""
    return _start("resnext-eval", ("eval",), argv)


def _start(prog: str, words: tuple[str, ...], argv: Sequence[str] | None) -> int:
    open_console()
    try:
        return _choose(prog, words, sys.argv[1:] if argv is None else argv)
    except SystemExit:  # of argparse, which has printed help or a mistake
        if code := run_command(prog, lambda: None, only_prints=True):
            raise SystemExit(code) from None
        raise
    except (BrokenPipeError, UnwrittenOutputError) as error:  # of argparse in Python 3.10; later ones keep it quiet
        return run_command(prog, partial(_raise, error), only_prints=True)


def _raise(error: OSError) -> None:
    raise error


def _choose(prog: str, words: tuple[str, ...], argv: Sequence[str]) -> int:
    """Run the command that `words` name, on `argv`; in a group, the one that `argv` goes on to name."""
    command = find_command(words)
    if isinstance(command, Command):
        parser = parser_of(prog, command)
        parse = parser.parse_known_intermixed_args if command.intermixed else parser.parse_known_args
        args, unknown = parse(argv)
        if unknown:
            return run_command(prog, lambda: _refuse(unknown, argv, parser))
        if command.keeps_a_log and not args.dry_run:
            lose_what_stdout_does_not_take()
        return run_command(prog, lambda: _run(command, args, [*words, *argv]), command.only_prints)
    group_parser = _group_parser(prog, command)
    if not argv:
        group_parser.print_help(sys.stderr)
        return 2
    name, *rest = argv
    if name == "help":
        group_parser.print_help()
        return 0
    if name in command.commands:
        return _choose(f"{prog} {name}", (*words, name), rest)
    if name.startswith("-") and name not in ("-h", "--help", "--version"):
        return run_command(prog, lambda: _refuse_without_command(prog, argv, command))
    group_parser.parse_args([name])  # ends here for --help and --version
    near = [_SYNONYMS[name]] if _SYNONYMS.get(name) in command.commands else []
    near += [close for close in difflib.get_close_matches(name, command.commands, n=1) if close not in near]
    hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(command.commands)}"
    print(f"{prog}: error: no command {name!r}; {hint}", file=sys.stderr)
    return 2


def parser_of(prog: str, command: Command) -> ArgumentParser:
    """Return the parser of a command that is called `prog`."""
    # Abbreviations would take --gpu 3, which elsewhere is a device, for --gpus 3.
    parser = ArgumentParser(prog=prog, formatter_class=RawDescriptionHelpFormatter, allow_abbrev=False)
    command.add_arguments(parser)
    assert parser.description
    assert parser.epilog
    parser.description = _filled(parser.description)
    parser.epilog = _filled(parser.epilog.replace("{prog}", prog))
    return parser


def _filled(text: str) -> str:
    """Fill the paragraphs of a text to the width of the terminal, but leave lines that are set in: commands, tables."""
    width = shutil.get_terminal_size().columns - 2
    return "\n".join(line if line.startswith("  ") else textwrap.fill(line, width) for line in text.split("\n"))


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
    if not command.many_processes or args.procs > 1:
        leave_slurm_step()
    launcher = launcher_pid() if command.many_processes else None
    allow_open_files()
    check_process_limits()
    request = _function(command.read)(args)
    if command.many_processes and args.procs > 1 and launcher is None:
        if (started := this_rank().world_size) > 1:
            raise InputError(
                f"--procs {args.procs}: this is already one of {started} processes that a launcher such as torchrun "
                "has started; leave out --procs, or the launcher"
            )
        with _nothing_collected():
            launch: Any = import_module("resnext_train.distributed.launcher").launch
        return int(launch(arguments, args.procs, request.patience_seconds))
    run = _function(command.run)
    if launcher is not None:  # not before: libraries that are interrupted while they are imported crash
        join_launcher(launcher)
    with nullcontext() if command.keeps_a_log else ended_in_order():
        code: int | None = run(request)
    return code


def _refuse(unknown: Sequence[str], argv: Sequence[str], parser: ArgumentParser) -> NoReturn:
    options: Any = import_module("resnext_train.cli.unknown_options")  # not before: help needs no recipe
    answers = options.refusal(unknown, argv, parser)
    raise InputError(*(answers if len(answers) == 1 else [f"{len(answers)} options are unknown", *answers]))


_SYNONYMS = {
    **dict.fromkeys(("evaluate", "test", "val", "validate"), "eval"),
    **dict.fromkeys(("fit", "run"), "train"),
    **dict.fromkeys(("classify", "infer", "inference"), "predict"),
    **dict.fromkeys(("plot", "compare"), "report"),
    **dict.fromkeys(("list", "show", "models", "recipes"), "info"),
}
"""What other tools call commands of ours."""


def _refuse_without_command(prog: str, argv: Sequence[str], group: Group) -> NoReturn:
    first = next(iter(group.commands))
    raise InputError(
        f"a command comes first, one of {', '.join(group.commands)}: {prog} {first} {' '.join(argv)[:200]}"
    )


def _function(place: str) -> Any:
    module, name = place.split(":")
    with _nothing_collected():
        return getattr(import_module(f"resnext_train.cli.{module}"), name)


@contextmanager
def _nothing_collected() -> Iterator[None]:
    """Pause Python's search for garbage: torch's import makes half a million objects, and all of them stay.

    It would take a seventh of a command's start.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
