"""BatchNorm statistics taken anew equal torch's own cumulative average, on any number of processes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from helpers.commands import evaluate, train
from helpers.ranks import run_ranks
from helpers.runs import RUN
from helpers.shared import made_once
from resnext_train.compute.precision import Precision
from resnext_train.config import Recipe, recipe_from_dict
from resnext_train.data.build_loaders import build_color_transform, build_train_loader
from resnext_train.data.build_sources import build_train
from resnext_train.data.sampler import StepPlan
from resnext_train.distributed.dist_context import DistContext
from resnext_train.distributed.rank import Rank
from resnext_train.inference.recalibration import recalibrate
from resnext_train.inference.stored_network import read_network

FP32, ONE = Precision("fp32", "cpu"), DistContext(Rank(), torch.device("cpu"))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    def make(out: Path) -> None:
        assert train([*RUN, "--out", str(out), "train.epochs=1"]) == 0

    return made_once(tmp_path_factory, "recalibration", make) / "checkpoints" / "last.pt"


def statistics(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in model.state_dict().items() if "running" in name}


def recalibrated(context: DistContext, checkpoint: Path, images: int) -> tuple[int, dict[str, Tensor]]:
    stored = read_network(checkpoint)
    model, _ = stored.build(stored.outputs)
    taken = recalibrate(model, stored.recipe, build_train(stored.recipe.data), images, FP32, context, print)
    return taken, statistics(model)


def by_torch(recipe: Recipe, checkpoint: Path, steps: int) -> dict[str, Tensor]:
    """torch's average over the same micro-batches, one after another in one process: momentum None."""
    stored = read_network(checkpoint)
    model, _ = stored.build(stored.outputs)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None
    images = build_train(recipe.data)
    plan = StepPlan(len(images), 16, 4)
    normalise = build_color_transform(recipe)
    with torch.no_grad():
        for batch in build_train_loader(recipe, images, plan, ONE, range(steps), print):
            model.train()(normalise(batch.images, batch.color_maps))
    return statistics(model)


def test_statistics_are_the_average_over_micro_batches(checkpoint: Path) -> None:
    recipe = recipe_from_dict(torch.load(checkpoint, weights_only=True)["recipe"], "checkpoint")
    taken, found = recalibrated(ONE, checkpoint, 20)
    assert taken == 32, "whole steps of 16"
    expected = by_torch(recipe, checkpoint, 2)
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_they_are_the_same_on_three_processes(checkpoint: Path, tmp_path: Path) -> None:
    alone = recalibrated(ONE, checkpoint, 48)
    for taken, found in run_ranks(recalibrated, 3, tmp_path, checkpoint, 48):
        assert taken == alone[0] == 48
        assert all(torch.equal(tensor, alone[1][name]) for name, tensor in found.items())


def test_the_command_says_from_how_many_images(checkpoint: Path, tmp_path: Path) -> None:
    results = []
    for extra in ([], ["--recalibrate-bn", "9999"]):
        assert evaluate(["--ckpt", str(checkpoint), "--json", str(tmp_path / "r.json"), *extra]) == 0
        results.append(json.loads((tmp_path / "r.json").read_text()))
    assert "recalibrated_bn" not in results[0]
    assert results[1]["recalibrated_bn"] == 48, "all images of an epoch, but those that no step takes"
    assert results[0]["loss"] != results[1]["loss"]
