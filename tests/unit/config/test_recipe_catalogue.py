"""A recipe is found again among the shipped ones by what it computes."""

from __future__ import annotations

import pytest

from resnext_train.config import find_entry, load_recipe, natural_key


@pytest.mark.parametrize(
    ("name", "overrides", "classes", "found"),
    [
        ("resnext50_32x4d", [], 1000, "resnext50_32x4d"),
        ("resnext50_32x4d", ["data.root=/x", "train.seed=3", "model.form=b", "train.precision=bf16"], 1000, None),
        ("resnext50_32x4d", ["train.epochs=99"], 1000, ""),
        ("resnext50_32x4d", ["eval.crop=192"], 1000, ""),
        ("resnext50_32x4d", ["train.comm=bf16"], 1000, ""),
        ("resnext50_32x4d", [], 999, ""),
        ("cifar/resnet20", [], 10, "cifar/resnet20"),
    ],
)
def test_which_shipped_recipe_it_is(name: str, overrides: list[str], classes: int, found: str | None) -> None:
    entry = find_entry(load_recipe(name, overrides), classes)
    assert (entry.name if entry else "").removesuffix(".yaml") == (name if found is None else found)


def test_a_run_from_before_there_were_references_is_found() -> None:
    """Recipes that are stored without the key are the shipped ones all the same."""
    entry = find_entry(load_recipe("resnext50_32x4d", ["train.reference=null"]), 1000)
    assert entry is not None
    assert entry.name == "resnext50_32x4d.yaml"
    assert entry.result.startswith("top-1 error 22.2 % (")  # ResNeXt paper, Table 3


def test_numbers_in_names_are_sorted_as_numbers() -> None:
    names = ["resnet101", "x-lr0.05", "resnet50", "x-lr0.0125", "x-lr0.1-seed10", "x-lr0.1-seed9", "10²", "é"]
    assert sorted(names, key=natural_key) == [
        *("10²", "resnet50", "resnet101", "x-lr0.0125", "x-lr0.05", "x-lr0.1-seed9", "x-lr0.1-seed10", "é")
    ]
