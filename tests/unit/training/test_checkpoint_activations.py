"""With activations computed again in the backward pass, steps have the same bits and keep less memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks

from helpers.ranks import run_ranks, single
from helpers.steps import MICRO_BATCHES, step_images, train_step
from resnext_train.config import ModelSection, SgdSection
from resnext_train.data.sampler import shard_for_rank
from resnext_train.distributed.dist_context import DistContext
from resnext_train.models.build_model import build_model
from resnext_train.models.resnet import ResNet
from resnext_train.training.compiled_network import NetworkOptions
from resnext_train.training.optimizer import build_optimizer


def steps(
    context: DistContext, again: bool, precision: Literal["fp32", "bf16"], network: dict[str, Any], compile_mode: str = "off"
) -> dict[str, torch.Tensor]:
    """Two steps: all gradients of the last, weights, statistics and momentum."""
    model = build_model(ModelSection(**network), 4, seed=1).to(memory_format=torch.channels_last)
    assert isinstance(model, ResNet)
    model.checkpoint_blocks = again
    optimizer = build_optimizer(SgdSection(lr=0.05), model)
    step = train_step(model, optimizer, context, precision=precision, options=NetworkOptions(compile=compile_mode))
    for n, size in enumerate((20, 13)):
        batches = step_images(size, n)
        own = [batches[i] for i in shard_for_rank(MICRO_BATCHES, context.world_size, context.rank)]
        step(iter(own), n, size, lr=0.05)
    gradients = {f"gradient of {k}": p.grad for k, p in model.named_parameters() if p.grad is not None}
    momentum = {f"momentum {i}": s["momentum_buffer"] for i, s in enumerate(optimizer.state.values())}
    return {**model.state_dict(), **gradients, **momentum}


def assert_equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    assert [k for k in one if not torch.equal(one[k], other[k])] == []


NETWORKS = {
    "bottlenecks": {"arch": "resnext14_2x4d", "stochastic_depth": 0.5, "blur_pool": True},
    "preactivation": {"arch": "preact_resnet20", "stochastic_depth": 0.5},
}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("network", NETWORKS)
def test_the_bits_are_the_same(network: str, precision: Any) -> None:
    kept, again = (single(steps, again, precision, NETWORKS[network]) for again in (False, True))
    assert_equal(kept, again)


@pytest.mark.slow
def test_two_processes_have_the_bits_of_one(tmp_path: Path) -> None:
    network = NETWORKS["bottlenecks"]
    one = single(steps, False, "fp32", network)
    for two in run_ranks(steps, 2, tmp_path, True, "fp32", network):
        assert_equal({k: v for k, v in one.items() if "gradient" not in k}, {k: v for k, v in two.items() if "gradient" not in k})
