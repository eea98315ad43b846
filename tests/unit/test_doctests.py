"""The examples in the docstrings of all public names work as they are shown."""

from __future__ import annotations

import doctest
from importlib import import_module
from pathlib import Path

import pytest

import resnext_train

MODULES = ["api.runs", "inference.classifier", "inference.prediction", "config.recipe"]
"""In an order in which a run is trained before it is used."""


@pytest.mark.slow
def test_every_public_name_has_an_example_that_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shown: set[str] = set()
    for name in MODULES:
        module = import_module(f"resnext_train.{name}")
        found = [test for test in doctest.DocTestFinder().find(module) if test.examples]
        # In the order of the source, so that runs/smoke is there before it is evaluated.
        for test in sorted(found, key=lambda test: test.lineno or 0):
            runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
            assert runner.run(test).failed == 0, test.name
            shown |= set(test.name.split("."))
    assert doctest.testmod(resnext_train).failed == 0
    assert set(resnext_train.__all__) - {"__version__"} <= shown
