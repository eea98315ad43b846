"""Exported weights say what they are, and are read again only if that is true of them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from helpers.exports import CLASSES, RESULT, TITLES, exported, small_recipe
from resnext_train.config import load_recipe
from resnext_train.errors import InputError
from resnext_train.export.exported_network import ExportedNetwork
from resnext_train.export.write_export import write_export
from resnext_train.inference.stored_network import read_network
from resnext_train.inference.weights_metadata import make_metadata, portable_recipe, recipe_digest, weights_digest


@pytest.fixture
def network() -> ExportedNetwork:
    return exported(small_recipe("resnext11_2x4d", blocks=[1, 1, 1], form="a"))


def written(network: ExportedNetwork, path: Path) -> Path:
    name = "pth" if path.suffix == ".pth" else "safetensors"
    write_export(network, path, name, path.with_suffix(".json") if name == "pth" else None)
    return path


def metadata_of(path: Path) -> dict[str, str]:
    with safe_open(path, "pt") as file:
        return dict(file.metadata())


def change(path: Path, **values: str) -> None:
    """Replace parts of a safetensors file's metadata."""
    save_file(load_file(path), path, {**metadata_of(path), **values})


@pytest.mark.parametrize("name", ["w.safetensors", "w.pth"])
def test_what_is_read_is_what_was_written(name: str, network: ExportedNetwork, tmp_path: Path) -> None:
    path = written(network, tmp_path / name)
    stored = read_network(path)
    assert (stored.recipe, stored.classes, stored.titles) == (network.recipe, CLASSES, TITLES)
    assert (stored.result, stored.is_ours) == (RESULT, True)
    images = torch.randn(2, 3, 48, 48, generator=torch.Generator().manual_seed(5))
    model, _ = stored.build(len(CLASSES))
    with torch.no_grad():
        assert torch.equal(model.eval()(images), network.model(images))


def test_the_same_content_in_both_files(network: ExportedNetwork, tmp_path: Path) -> None:
    beside = json.loads(written(network, tmp_path / "w.pth").with_suffix(".json").read_text())
    inside = metadata_of(written(network, tmp_path / "w.safetensors"))
    assert inside.pop("format") == "pt"
    assert inside.keys() == beside.keys()
    assert all(inside[key] == value or json.loads(inside[key]) == value for key, value in beside.items())
    stated = {key: beside[key] for key in ("network", "resize", "crop", "interpolation", "mean", "std", "result")}
    assert stated == {
        "network": "resnext11_2x4d, blocks (1, 1, 1), form a",
        **{"resize": 56, "crop": 48, "interpolation": "bilinear"},
        **{"mean": [0.5, 0.4, 0.3], "std": [0.229, 0.224, 0.225], "result": RESULT},
    }
    canonical = json.dumps(beside["recipe"], sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert beside["recipe_sha256"] == hashlib.sha256(canonical.encode()).hexdigest()
    assert beside["recipe"] == network.recipe.to_dict()


def test_overrides_and_another_recipe_keep_the_network(network: ExportedNetwork, tmp_path: Path) -> None:
    path = written(network, tmp_path / "w.safetensors")
    assert read_network(path, overrides=["eval.resize=60"]).recipe.eval.resize == 60
    other = read_network(path, load_recipe("resnet18")).recipe
    assert (other.model, other.eval.resize) == (network.recipe.model, 256)
    with pytest.raises(InputError, match=r"model\.width"):
        read_network(path, overrides=["model.width=2"])


def test_damage_and_mismatches(network: ExportedNetwork, tmp_path: Path) -> None:
    path = written(network, tmp_path / "w.safetensors")
    good = path.read_bytes()

    def refused(*told: str) -> None:
        with pytest.raises(InputError) as caught:
            read_network(path)
        assert "\n" not in str(caught.value)
        assert all(text in str(caught.value) for text in (str(path), *told)), str(caught.value)
        path.write_bytes(good)

    path.write_bytes(good[:-5] + bytes([good[-5] ^ 1]) + good[-4:])  # one bit of the last tensor
    refused("checksum")
    recipe = json.loads(metadata_of(path)["recipe"])
    recipe["data"]["mean"][0] = 0.4
    change(path, recipe=json.dumps(recipe))
    refused("recipe", "checksum")
    change(path, classes='["a", "b"')
    refused("classes", "JSON")
    change(path, classes='["a", "b"]')
    refused("titles")
    change(path, classes='["a", "a", "b", "c", "d"]')
    refused("classes")
    change(path, result="[" * 100_000)
    refused("result")
    change(path, result="7")
    refused("result")
    change(path, export="resnext-train export 2")
    refused("version", "export 2")
    assert read_network(path).classes == CLASSES


def test_a_json_file_of_other_weights(network: ExportedNetwork, tmp_path: Path) -> None:
    path = written(network, tmp_path / "w.pth")
    weights = torch.load(path, weights_only=True)
    torch.save({**weights, "fc.bias": weights["fc.bias"] + 1}, path)
    with pytest.raises(InputError, match=r"w\.pth does not match the checksum in .*w\.json"):
        read_network(path)
    path.with_suffix(".json").write_text('{"name": "of another program"}')
    with pytest.raises(InputError, match="--config"):
        read_network(path)
    stored = read_network(path, network.recipe)
    assert (stored.classes, stored.is_ours) == (None, False)
    path.with_suffix(".json").write_bytes(b"{\xff")
    with pytest.raises(InputError, match=r"w\.json"):
        read_network(path)


def test_the_digest_sees_every_tensor() -> None:
    base = {"a": torch.zeros(2, 3), "b": torch.zeros((), dtype=torch.int64)}
    others: list[dict[str, Any]] = [
        {**base, "a": torch.zeros(3, 2)},
        {**base, "a": torch.zeros(2, 3, dtype=torch.float64)},
        {**base, "b": torch.ones((), dtype=torch.int64)},
        {"a": base["a"], "c": base["b"]},
        {"a": base["a"]},
    ]
    assert len({weights_digest(weights) for weights in (base, *others)}) == 6
    assert weights_digest({"b": base["b"], "a": base["a"]}) == weights_digest(base)


def test_a_result_that_json_cannot_hold() -> None:
    recipe = small_recipe("resnet8")
    made = make_metadata(recipe, {"a": torch.zeros(1)}, None, None, {**RESULT, "loss": float("nan")})
    assert made["result"]["loss"] is None
    assert (made["classes"], made["titles"]) == (None, None)


def test_a_recipe_for_others_names_no_place_of_this_machine(tmp_path: Path) -> None:
    places = ["data.root", "data.titles", "data.only_classes", "eval.classes", "eval.labels", "model.weights"]
    overrides = [*(f"{key}={tmp_path}/x" for key in places), f"eval.also={{a: {tmp_path}/y}}"]
    recipe = portable_recipe(load_recipe("resnet18", overrides))
    assert str(tmp_path) not in recipe.to_yaml()
    assert portable_recipe(load_recipe("resnet18", ["eval.labels=imagenet-real"])).eval.labels == "imagenet-real"


def test_an_export_of_others_names_no_file_to_read(network: ExportedNetwork, tmp_path: Path) -> None:
    path = written(network, tmp_path / "w.safetensors")
    recipe = json.loads(metadata_of(path)["recipe"])
    recipe["eval"]["classes"] = "/etc/hostname"
    change(path, recipe=json.dumps(recipe), recipe_sha256=recipe_digest(recipe))
    assert read_network(path).recipe.eval.classes is None


@pytest.mark.parametrize("result", [{"top1": "x"}, {}, [], {**RESULT, "count": 0}])
def test_a_result_that_is_none(result: object, network: ExportedNetwork, tmp_path: Path) -> None:
    path = written(network, tmp_path / "w.safetensors")
    change(path, result=json.dumps(result))
    with pytest.raises(InputError, match=r"is damaged: result"):
        read_network(path)
