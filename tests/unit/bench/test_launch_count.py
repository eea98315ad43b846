"""How many calls of torch's dispatcher a step makes beside the network's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from helpers.ranks import run_ranks, single
from helpers.steps import NETWORK, train_step
from resnext_train.bench.launch_count import NETWORK as OF_THE_NETWORK
from resnext_train.bench.launch_count import OPTIONS, LaunchCount, backward_budget, budget, count_launches
from resnext_train.compute.loss import TrainingLoss
from resnext_train.config import LambSection, SgdSection
from resnext_train.data.image_batch import ImageBatch
from resnext_train.data.sampler import shard_for_rank
from resnext_train.data.transforms.color_transform import MAP_ROWS, mapped_as_on_gpus
from resnext_train.data.transforms.erase import RandomErasing
from resnext_train.data.transforms.mix import Mixing
from resnext_train.distributed.dist_context import DistContext
from resnext_train.models.build_model import build_model
from resnext_train.training.ema import WeightAverage
from resnext_train.training.health import weights_sum
from resnext_train.training.optimizer import build_optimizer

WAITS = {"aten::_local_scalar_dense", "aten::item", "aten::nonzero", "aten::is_nonzero"}
VIEWS = {f"aten::{name}" for name in ("view", "as_strided", "detach", "view.dtype", "unsqueeze", "slice.Tensor")}


def count_step(context: DistContext, micro_batches: int, everything: bool = False) -> dict[str, Any]:
    """The calls of a second step: by part and name, those beyond the network, and those of backward.

    With `everything` also those of what later recipes do.
    """
    model = build_model(NETWORK, 4, seed=1).to(memory_format=torch.channels_last)
    section: SgdSection | LambSection = LambSection(name="lamb") if everything else SgdSection()
    erasing = RandomErasing(1.0, "pixel", count=2) if everything else RandomErasing()
    options: dict[str, Any] = {"micro_batches": micro_batches, "erasing": erasing}
    if everything:
        options |= {"mixing": Mixing(0.2, 0.0, 0.5), "average": WeightAverage(model, 0.9), "clip_norm": 1.0}
        options |= {"loss": TrainingLoss(0.1, kind="bce")}
    step = train_step(model, build_optimizer(section, model), context, **options)
    shard = shard_for_rank(micro_batches, context.world_size, context.rank)
    pixels, labels = torch.zeros(2, 3, 32, 32, dtype=torch.uint8), torch.zeros(2, dtype=torch.int64)
    boxes = erasing.draw_boxes(0, 0, labels.numpy(), None, 32)
    batches = [ImageBatch(pixels, labels, torch.ones(2, MAP_ROWS, 3), erase_boxes=boxes) for _ in shard]

    def take(number: int) -> LaunchCount:
        return count_launches(lambda: step(iter(batches), number, 2 * micro_batches, lr=0.1))

    with mapped_as_on_gpus():
        take(0)
        counted = take(1)
    parts = {part: dict(calls) for part, calls in counted.calls.items()}
    return {"parts": parts, "beyond": counted.beyond, "backward": counted.backward}


PARAMETERS = len(list(build_model(NETWORK, 4).parameters()))


@pytest.mark.parametrize("micro_batches", [1, 8])
def test_a_step_makes_few_calls_beside_the_networks(micro_batches: int) -> None:
    counted = single(count_step, micro_batches)
    calls = counted["parts"]
    outside = sum(sum(of_part.values()) for part, of_part in calls.items() if part not in OF_THE_NETWORK)
    assert outside == counted["beyond"] <= budget(micro_batches) == 60 + 30 * (micro_batches - 1)
    assert sum(calls["backward"].get(f"aten::add{kind}.Tensor", 0) for kind in ("", "_")) <= 20 * micro_batches
    assert "aten::add_.Tensor" not in calls["forward"], "a counter of batches that is overwritten"


@pytest.mark.parametrize("micro_batches", [1, 8])
def test_options_add_few_calls_and_none_that_waits(micro_batches: int) -> None:
    counted = single(count_step, micro_batches, True)
    assert counted["beyond"] <= budget(micro_batches, OPTIONS) == 78 + 60 * micro_batches - 30
    optimizer = counted["parts"]["optimizer"]
    assert sum(number for name, number in optimizer.items() if name not in VIEWS) <= 100, "whatever the parameters"
    waits = [f"{part}: {name}" for part, calls in counted["parts"].items() for name in calls if name in WAITS]
    assert not waits, "a GPU's host would wait for it"


@pytest.mark.slow
@pytest.mark.parametrize("micro_batches", [1, 2])
def test_several_ranks_add_one_call_for_each_parameter_and_one_where_they_add_up(
    micro_batches: int, tmp_path: Path
) -> None:
    alone = single(count_step, 1)["backward"]
    for counted in run_ranks(count_step, 2, tmp_path, 2 * micro_batches):
        assert counted["beyond"] <= budget(micro_batches)
        limit = backward_budget(PARAMETERS, micro_batches, 2)
        assert limit == micro_batches * PARAMETERS
        assert counted["backward"] - micro_batches * alone <= limit


def test_the_weights_are_summed_at_once() -> None:
    model = build_model(NETWORK, 4).to(memory_format=torch.channels_last)
    (calls,) = count_launches(lambda: weights_sum(model.state_dict().values())).calls.values()
    assert sum(number for name, number in calls.items() if name not in VIEWS) <= 8
