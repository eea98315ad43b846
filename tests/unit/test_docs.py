"""The pages name files, code and commands that are there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from resnext_train.cli.command_table import Command, find_command
from resnext_train.cli.main import parser_of
from resnext_train.config import find_recipe, load_recipe
from resnext_train.distributed.stop_signals import SIGNALS_TO_HANDLE

ROOT = Path(__file__).parents[2]
PAGES = ["CONTRIBUTING.md", "docs/architecture.md", "docs/recipes.md"]


def quoted(page: str) -> list[str]:
    """What a page puts in backticks."""
    return re.findall(r"`([^`\n]+)`", (ROOT / page).read_text())


@pytest.mark.parametrize("page", PAGES)
def test_files_and_folders_exist(page: str) -> None:
    named = {text for text in quoted(page) if re.fullmatch(r"[\w./-]+(\.(py|md|yaml|sh|toml)|/)", text)}
    parts = ("resnext_train", "tests", "docs", "configs", "scripts")
    here = [ROOT, *(path for part in parts for path in (ROOT / part, *(ROOT / part).rglob("*")) if path.is_dir())]
    on_disk = {"recipe.yaml"}  # of a run, not of the project
    assert len(named) >= 3
    assert not {name for name in named - on_disk if not any((folder / name).exists() for folder in here)}


@pytest.mark.parametrize("page", PAGES)
def test_names_of_code_occur_in_it(page: str) -> None:
    dotted = {text.split(":")[0] for text in quoted(page) if re.fullmatch(r"[\w.]+(: .*)?", text)}
    names = {part for text in dotted for part in text.split(".") if re.search(r"_|[a-z][A-Z]", part)}
    code = {word for path in (ROOT / "resnext_train").rglob("*.py") for word in re.findall(r"\w+", path.read_text())}
    files = {path.stem for path in (ROOT / "resnext_train").rglob("*.py")}
    assert not names - code - files - {"build_", "resnext50_32x4d"}


def shown(pattern: str) -> list[str]:
    """The lines of all pages and recipes that match, with those joined that a backslash continues."""
    pages = [
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        *(ROOT / "docs").glob("*.md"),
        *(ROOT / "configs").rglob("*"),
    ]
    texts = [path.read_text().replace("\\\n", " ") for path in pages if path.is_file()]
    return [match[1] for text in texts for match in re.finditer(pattern, text, re.MULTILINE)]


def test_commands_that_are_shown_have_the_options_that_are_shown() -> None:
    lines = shown(r"^(?: {4}|# .*: +)(resnext .*)")
    assert len(lines) > 120
    for line in dict.fromkeys(lines):
        words = shlex.split(line.partition(" | ")[0], comments=True)[1:]
        count = 2 if words[0] in ("prepare", "bench") else 1
        command = find_command(words[:count])
        assert isinstance(command, Command)
        args = parser_of("resnext", command).parse_intermixed_args(words[count:])
        named = getattr(args, "config", None) or []
        for config in [named] if isinstance(named, str) else named:
            assert "=" in config or find_recipe(config)


def test_torchrun_is_told_all_signals_that_stop_a_run() -> None:
    lines = shown(r"^ {4}(torchrun .*)")
    assert len(lines) == 2
    assert all(f" --signals-to-handle={SIGNALS_TO_HANDLE} " in line for line in lines)
    assert SIGNALS_TO_HANDLE == "SIGTERM,SIGINT,SIGUSR1,SIGHUP"


def test_runs_on_several_hosts_have_a_micro_batch_for_each_process() -> None:
    """Where a line does not say how many GPUs a host has, there are 8, as the pages say beside it."""
    lines = shown(r"^ {4}((?:scripts/multi_node\.sh|sbatch|srun|torchrun) .*)")
    assert len(lines) >= 6
    for line in lines:
        counts = {name: int(n) for name, n in re.findall(r"--(\w[\w-]*)[= ](\d+)", line)}
        hosts = counts.get("nodes", counts.get("nnodes", 1))
        processes = counts.get("ntasks") or hosts * (counts.get("nproc_per_node") or counts.get("gpus-per-node", 8))
        overrides = re.findall(r"(?:train|optimizer|schedule)\.[\w.]+=\S+", line)
        assert load_recipe("resnext50_32x4d", overrides).train.micro_batches >= processes, line
