"""How many calls of torch's dispatcher a step makes beside the network's own."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from helpers.ranks import run_ranks, single
from helpers.steps import NETWORK, train_step
from resnext_train.bench.launch_count import NETWORK as OF_THE_NETWORK
from resnext_train.bench.launch_count import LaunchCount, budget, count_launches
from resnext_train.config import SgdSection
from resnext_train.data.image_batch import ImageBatch
from resnext_train.data.sampler import shard_for_rank
from resnext_train.data.transforms.color_transform import MAP_ROWS, mapped_as_on_gpus
from resnext_train.distributed.dist_context import DistContext
from resnext_train.models.build_model import build_model
from resnext_train.training.health import weights_sum
from resnext_train.training.optimizer import build_optimizer

VIEWS = {f"aten::{name}" for name in ("view", "as_strided", "detach", "view.dtype", "unsqueeze", "slice.Tensor")}


def count_step(context: DistContext, micro_batches: int) -> dict[str, dict[str, int]]:
    """The calls of a second step, by part and name."""
    model = build_model(NETWORK, 4, seed=1).to(memory_format=torch.channels_last)
    step = train_step(model, build_optimizer(SgdSection(), model), context, micro_batches=micro_batches)
    shard = shard_for_rank(micro_batches, context.world_size, context.rank)
    pixels, labels = torch.zeros(2, 3, 32, 32, dtype=torch.uint8), torch.zeros(2, dtype=torch.int64)
    batches = [ImageBatch(pixels, labels, torch.ones(2, MAP_ROWS, 3)) for _ in shard]

    def take(number: int) -> LaunchCount:
        return count_launches(lambda: step(iter(batches), number, 2 * micro_batches, lr=0.1))

    with mapped_as_on_gpus():
        take(0)
        return {part: dict(calls) for part, calls in take(1).calls.items()}


def beyond(calls: dict[str, dict[str, int]]) -> int:
    return sum(sum(of_part.values()) for part, of_part in calls.items() if part not in OF_THE_NETWORK)


PARAMETERS = len(list(build_model(NETWORK, 4).parameters()))


@pytest.mark.parametrize("micro_batches", [1, 8])
def test_a_step_makes_few_calls_beside_the_networks(micro_batches: int) -> None:
    calls = single(count_step, micro_batches)
    assert beyond(calls) <= budget(PARAMETERS, micro_batches, 1)
    assert beyond(calls) <= 60 + 30 * (micro_batches - 1), "a further micro-batch adds its gradients in one call"
    assert sum(calls["backward"].get(f"aten::add{kind}.Tensor", 0) for kind in ("", "_")) <= 20 * micro_batches
    assert "aten::add_.Tensor" not in calls["forward"], "a counter of batches that is overwritten"


@pytest.mark.slow
def test_several_ranks_add_one_call_for_each_parameter(tmp_path: Path) -> None:
    for calls in run_ranks(count_step, 2, tmp_path, 2):
        assert beyond(calls) <= budget(PARAMETERS, 1, 2)
        copies = {name: n for name, n in calls["backward"].items() if "copy" in name or "mul" in name or "div" in name}
        assert sum(copies.values()) <= PARAMETERS + 10


def test_the_weights_are_summed_at_once() -> None:
    model = build_model(NETWORK, 4).to(memory_format=torch.channels_last)
    (calls,) = count_launches(lambda: weights_sum(model)).calls.values()
    assert sum(number for name, number in calls.items() if name not in VIEWS) <= 8
