"""The command `resnext`: its help, its names, and what it says before torch is imported."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

import resnext_train
from resnext_train.cli import main as cli
from resnext_train.cli.command_table import Command, Group, find_command
from resnext_train.cli.main import main, parser_of
from resnext_train.cli.run_command import run_command
from resnext_train.distributed.rank import Rank

COMMANDS = {"train", "sweep", "runs", "report", "eval", "predict", "info", "export", "prepare", "bench", "verify"}


def all_commands(words: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    found = find_command(words)
    if isinstance(found, Command):
        return [words]
    return [leaf for name in found.commands for leaf in all_commands((*words, name))]


def test_help_lists_every_command_in_a_line_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["--help"])
    assert end.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    listed = {line.split()[0]: line for line in lines[lines.index("commands:") + 1 :] if line.startswith("  ")}
    assert listed.keys() == COMMANDS
    for name, line in listed.items():
        assert find_command((name,)).summary in line


def test_without_a_command_help_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert set(told.err.split()) >= COMMANDS


@pytest.mark.parametrize("arguments", [["--version"], ["prepare", "--version"]])
def test_version(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 0
    assert capsys.readouterr().out.split() == ["resnext-train", resnext_train.__version__]


@pytest.mark.parametrize(
    ("arguments", "told"), [(["trian"], "train"), (["prepare", "pick"], "pack"), (["x"], "verify")]
)
def test_a_mistyped_command_is_told_the_nearest(
    arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert arguments[-1] in error
    assert told in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("words", all_commands(), ids=" ".join)
def test_help_of_a_command_shows_an_example_that_its_parser_takes(words: tuple[str, ...]) -> None:
    command = find_command(words)
    assert isinstance(command, Command)
    prog = " ".join(("resnext", *words))
    parser = parser_of(prog, command)
    assert all(option.help for option in parser._actions)
    text = parser.format_help().replace("\\\n", " ")
    examples = [line.removeprefix(f"  {prog} ").split() for line in text.split("\n") if line.startswith(f"  {prog} ")]
    assert examples
    assert all(parser.parse_intermixed_args(example) for example in examples)


def test_help_imports_neither_torch_nor_pydantic() -> None:
    code = (
        "import sys\n"
        "from resnext_train.cli.main import main\n"
        "one, more = ['train', 'eval', 'info', 'export', 'verify'], [['prepare', 'pack'], ['bench', 'step'], []]\n"
        "for words in [*([word] for word in one), *more]:\n"
        "    try: main([*words, '--help'])\n"
        "    except SystemExit as e: assert e.code == 0\n"
        "sys.exit(bool({'torch', 'pydantic', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("usage:") == 8


MISTAKES = [
    ("train --config smoke.yaml train.epoch=3", "train.epoch"),
    ("train --procs 2 --config smoke.yaml train.epoch=3", "train.epoch"),
    ("train --config smoke.yaml model.arch=resnet51", "resnet51"),
    ("train --config x", "x"),
    ("train --procs 0 --config smoke", "--procs 0"),
    ("train --procs 5 --config smoke", "5 processes"),
    ("eval --procs 2 --ckpt nowhere.pt", "nowhere.pt"),
    ("eval --ckpt nowhere.pt", "nowhere.pt"),
    ("export --ckpt nowhere.pt --out x.pth", "nowhere.pt"),
    ("predict --ckpt nowhere.pt x.jpg", "nowhere.pt"),
    ("info resnet51", "resnet51"),
    ("prepare pack a b --tier raw --size 7", "--size 7"),
    ("bench data --config smoke --rounds 0", "--rounds 0"),
    ("bench step --config smoke --procs 5", "5 processes"),
    ("bench scaling --config smoke --procs 5", "5 processes"),
    ("verify --config smoke --kills 0", "--kills"),
    ("verify --config smoke --procs 5", "5 processes"),
]
"""Arguments of `resnext`, and what the sentence about them names."""


def test_a_mistake_is_one_sentence_before_torch_is_imported() -> None:
    code = (
        "import sys\n"
        "from resnext_train.cli.main import main\n"
        f"for words in {[words.split() for words, _ in MISTAKES]}:\n"
        "    assert main(words) == 2, words\n"
        "    assert 'torch' not in sys.modules, words"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for (words, key), line in zip(MISTAKES, done.stderr.splitlines(), strict=True):
        command = " ".join(words.split()[: 2 if words.startswith(("prepare", "bench")) else 1])
        assert line.startswith(f"resnext {command}: error: "), words
        assert key in line, words


@pytest.mark.parametrize("name", ["train", "evaluate"])
def test_scripts_of_two_commands_are_the_commands(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    word = {"train": "train", "evaluate": "eval"}[name]
    with pytest.raises(SystemExit):
        getattr(cli, name)(["--help"])
    script = capsys.readouterr().out
    with pytest.raises(SystemExit):
        main([word, "--help"])
    assert script.split() == capsys.readouterr().out.replace(f"resnext {word}", f"resnext-{word}").split()


def test_processes_of_a_launcher_start_no_others(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in Rank(0, 2, 0, 2, "localhost", 29500).variables().items():
        monkeypatch.setenv(name, value)
    assert main(["train", "--procs", "2", "--config", "smoke"]) == 2
    assert "--procs 2" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["smoke", "smoke.yaml", "own", "own.yaml"])
def test_recipes_are_named_with_or_without_their_ending(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.yaml").write_text("base: imagenet/_paper\nmodel: {arch: resnext14_8x4d}\n")
    for option in ([], ["--config"]):
        assert main(["info", *option, name]) == 0
        assert capsys.readouterr().out.startswith("resnext14_8x4d, ")


def test_every_group_and_command_has_a_line() -> None:
    assert isinstance(find_command(("prepare",)), Group)
    assert all(len(find_command(words).summary) < 60 for words in all_commands())


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried ...")]
)
def test_memory_that_runs_out_is_one_sentence(error: Exception, capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> int:
        raise error

    assert run_command("resnext eval", fail) == 1
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "eval.batch_size" in told


def test_other_errors_of_torch_are_not_taken_for_it() -> None:
    def fail() -> int:
        raise RuntimeError("shapes differ")

    with pytest.raises(RuntimeError, match="shapes differ"):
        run_command("resnext eval", fail)


@pytest.mark.parametrize("words", [["train", "--config", "smoke", "train.epoch=3"], ["eval", "--ckpt", "none.pt"]])
def test_torchruns_table_of_failures_shows_the_sentence(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "error.json"
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(file))
    assert main(words) == 2
    failure = ProcessFailure(local_rank=0, pid=1, exitcode=2, error_file=str(file))
    sentence = capsys.readouterr().err.strip()
    assert f"traceback : {sentence}" in ChildFailedError("resnext_train", {0: failure}).format_msg()
