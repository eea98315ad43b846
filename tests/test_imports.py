"""Imports point one way, and the light modules stay light."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import resnext_train

PACKAGE = Path(resnext_train.__file__).parent

BOTTOM = {"config", "errors", "distributed"}
LAYERS = {
    "cli": {
        "train",
        "run",
        "evaluate",
        "resume",
        "runlog",
        "checkpoint",
        "precision",
        "models",
        "data",
        "prepare",
        "bench",
        "verify",
        "signals",
        *BOTTOM,
    },
    "train": {"start", "boundary", "run", "evaluate", "data", "runlog", "resume", "signals", *BOTTOM},
    "start": {
        *("state", "run", "step", "losses", "models", "data", "optim", "checkpoint", "runlog", "resume", "saving"),
        *("signals", *BOTTOM),
    },
    "boundary": {"state", "run", "metrics", "data", *BOTTOM},
    "state": {"run", "step", "schedules", "checkpoint", "runlog", "resume", *BOTTOM},
    "run": {"step", "data", "precision", "schedules", "saving", "runlog", "signals", *BOTTOM},
    "saving": {"checkpoint", "runlog", "errors"},
    "step": {"data", "losses", "metrics", "optim", "precision", *BOTTOM},
    "evaluate": {"data", "losses", "metrics", "precision", *BOTTOM},
    "resume": {"runlog", "config", "errors"},
    "models": {"config", "errors"},
    "data": {"signals", *BOTTOM},
    "signals": set(),
    "prepare": {"data", "config", "errors"},
    "bench": {"data", "prepare", "config", "errors"},
    "verify": {"errors"},
    "schedules": {"config"},
    "optim": {"config"},
    "losses": set(),
    "metrics": set(),
    "precision": {"errors"},
    "checkpoint": {"errors"},
    "runlog": {"errors"},
    "distributed": {"errors"},
    "config": {"errors"},
    "errors": set(),
}
"""What each part may import from the package; a part may always import from itself."""


def modules() -> list[Path]:
    return sorted(p for p in PACKAGE.rglob("*.py") if p.name not in ("__init__.py", "__main__.py"))


def part_of(dotted: str) -> str:
    return dotted.split(".")[1] if "." in dotted else ""


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_one_way(path: Path) -> None:
    own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    imported = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("resnext_train"):
            names = [f"resnext_train.{a.name}" for a in node.names] if node.module == "resnext_train" else [node.module]
            imported |= {part_of(n) for n in names if not n.endswith("__version__")}
        if isinstance(node, ast.Import):
            imported |= {part_of(a.name) for a in node.names if a.name.startswith("resnext_train.")}
    assert imported - {own} <= LAYERS[own]


@pytest.mark.parametrize("command", ["train", "eval", "info", "prepare", "bench", "verify"])
def test_help_imports_neither_torch_nor_pydantic(command: str) -> None:
    code = (
        "import sys\n"
        f"from resnext_train.cli.{command} import main\n"
        "try: main(['--help'])\n"
        "except SystemExit as e: assert e.code == 0\n"
        "sys.exit(bool({'torch', 'pydantic', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "usage:" in done.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ["--config", "smoke.yaml", "train.epoch=3"],
        ["--config", "smoke.yaml", "model.arch=resnet51"],
        ["--config", "x"],
    ],
)
def test_a_mistake_in_the_recipe_is_found_before_torch_is_imported(arguments: list[str]) -> None:
    code = (
        "import sys\n"
        "from resnext_train.cli.train import main\n"
        f"assert main({arguments!r}) == 2\n"
        "sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
