"""Imports point one way, and the light modules stay light."""

from __future__ import annotations

import ast
import re
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import resnext_train

PACKAGE = Path(resnext_train.__file__).parent

MAY_IMPORT: dict[str, set[str]] = {
    "errors": set(),
    "atomic_file": set(),
    "regular_file": set(),
    "config": {"regular_file", "errors"},
    "compute": {"errors"},
    "distributed": {"compute", "errors"},
    "run_dir": {"regular_file", "errors", "atomic_file"},
    "checkpoint": {"run_dir", "config", "regular_file", "errors", "atomic_file"},
    "models": {"config", "errors"},
    "data": {"distributed", "config", "regular_file", "errors"},
    "evaluation": {"data", "models", "compute", "run_dir", "distributed", "config", "errors"},
    "inference": {
        *("checkpoint", "evaluation", "data", "models", "compute", "run_dir", "distributed", "config"),
        *("regular_file", "errors"),
    },
    "export": {"inference", "checkpoint", "data", "models", "config", "errors", "atomic_file"},
    "training": {
        *("evaluation", "data", "models", "compute", "checkpoint", "run_dir", "distributed", "config"),
        *("regular_file", "errors"),
    },
    "report": {"evaluation", "data", "models", "run_dir", "config", "regular_file", "errors", "atomic_file"},
    "sweep": {"report", "training", "checkpoint", "run_dir", "distributed", "config", "regular_file", "errors"},
    "api": {"training", "inference", "models", "checkpoint", "run_dir", "distributed", "config", "errors"},
    "prepare": {"data", "regular_file", "errors", "atomic_file"},
    "bench": {"training", "prepare", "data", "models", "compute", "distributed", "config", "errors"},
    "verify": {"errors"},
    "cli": {
        *(
            "training",
            "inference",
            "export",
            "prepare",
            "bench",
            "verify",
            "sweep",
            "report",
            "evaluation",
            "data",
            "models",
            "compute",
            "checkpoint",
            "run_dir",
        ),
        *("distributed", "config", "regular_file", "errors", "atomic_file"),
    },
}
"""What each folder may import from the package, from the bottom up; a folder may always import from itself."""


LIGHT = [
    *("data.class_titles", "data.multi_labels", "evaluation.calibration", "evaluation.class_table"),
    *("evaluation.mistake_sheet", "evaluation.prediction_file", "evaluation.result_report"),
    *("report.run_record", "report.tables.text_report", "report.tables.summary_csv", "report.papers.paper_output"),
    *("report.page.html_report", "report.page.watch", "report.tables.deviation_table", "config.fidelity.describe"),
]
"""Modules that are of use without torch, with all that they import."""


def modules() -> list[Path]:
    return sorted(p for p in PACKAGE.rglob("*.py") if p.name not in ("__init__.py", "__main__.py"))


def dotted(path: Path) -> str:
    return ".".join((PACKAGE.name, *path.relative_to(PACKAGE).with_suffix("").parts))


def imported(path: Path) -> set[str]:
    """Modules and names that a module imports from the package, also inside functions and for types alone."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == PACKAGE.name:
            found |= {node.module, *(f"{node.module}.{a.name}" for a in node.names)}
        if isinstance(node, ast.Import):
            found |= {a.name for a in node.names if a.name.split(".")[0] == PACKAGE.name}
    return found - {PACKAGE.name, f"{PACKAGE.name}.__version__"}


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_one_way(path: Path) -> None:
    own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    assert {name.split(".")[1] for name in imported(path)} - {own} <= MAY_IMPORT[own]


def test_no_folder_and_no_module_imports_itself_through_others() -> None:
    names = {dotted(path) for path in modules()}
    TopologicalSorter(MAY_IMPORT).prepare()
    TopologicalSorter({dotted(p): (imported(p) & names) - {dotted(p)} for p in modules()}).prepare()


@pytest.mark.parametrize("name", LIGHT)
def test_what_works_on_results_alone_reaches_no_torch(name: str) -> None:
    files = {dotted(path): path for path in modules()}
    reached, waiting = set(), [f"{PACKAGE.name}.{name}"]
    while waiting:
        module = waiting.pop()
        reached.add(module)
        tree = ast.parse(files[module].read_text())
        named = {n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
        named |= {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
        assert "torch" not in {str(n).split(".")[0] for n in named}, module
        waiting += (imported(files[module]) & files.keys()) - reached


def test_the_top_level_holds_folders_and_what_all_of_them_use() -> None:
    files = {p.name for p in PACKAGE.iterdir() if p.is_file()}
    assert files == {"__init__.py", "__main__.py", "errors.py", "atomic_file.py", "regular_file.py", "py.typed"}


def test_no_module_is_longer_than_a_reader_takes_in() -> None:
    assert not {p.name: n for p in modules() if (n := len(p.read_text().splitlines())) > 350}


def test_no_constructor_takes_more_than_six_arguments() -> None:
    taken = {
        f"{path.name}: {node.name}": len(init.args.args) + len(init.args.kwonlyargs) - 1
        for path in modules()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef)
        for init in node.body
        if isinstance(init, ast.FunctionDef) and init.name == "__init__"
    }
    assert not {name: count for name, count in taken.items() if count > 6}


def dots(node: ast.AST) -> int:
    """Attributes in a chain, also through calls and indices: 3 in `self.a.b().c`, but for the call's own arguments."""
    if isinstance(node, ast.Attribute):
        return 1 + dots(node.value)
    if isinstance(node, ast.Call):
        return dots(node.func)
    return dots(node.value) if isinstance(node, ast.Subscript) else 0


def test_the_trainer_keeps_to_what_its_parts_offer() -> None:
    tree = ast.parse((PACKAGE / "training" / "trainer.py").read_text())
    assert not {ast.unparse(node) for node in ast.walk(tree) if dots(node) > 2}


def commands() -> list[Path]:
    """The modules of cli/ that the table of commands names."""
    runs = re.findall(r'"(\w+):(?!read_)\w+"', (PACKAGE / "cli" / "command_table.py").read_text())
    return [PACKAGE / "cli" / f"{name}.py" for name in sorted(set(runs))]


def test_commands_import_at_their_top_and_nothing_from_each_other() -> None:
    names = {dotted(path) for path in commands()}
    assert len(names) == 11
    for path in commands():
        assert not imported(path) & names
        tree = ast.parse(path.read_text())
        inner = [n for n in ast.walk(tree) if isinstance(n, ast.Import | ast.ImportFrom) and n not in tree.body]
        assert not inner, path
