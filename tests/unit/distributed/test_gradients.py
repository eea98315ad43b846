"""Gradients are summed over ranks: in fp32, or rounded to bf16."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from helpers.ranks import run_ranks
from resnext_train.distributed.dist_context import DistContext
from resnext_train.distributed.gradients import distribute


def gradients(context: DistContext) -> dict[str, Any]:
    """This rank's own gradients; their sums in fp32, in bf16, and where those of rank 1 overflow; bytes of buckets."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(200, 30), nn.Linear(30, 10))
    images = torch.randn(8, 200, generator=torch.Generator().manual_seed(context.rank))
    own = copy.deepcopy(model)
    own(images).square().sum().backward()
    result: dict[str, Any] = {"own": flat(own)}
    for name, scale in (("fp32", 1.0), ("bf16", 1.0), ("overflow", 1e39)):
        summed = copy.deepcopy(model)
        network = distribute(summed, context, 0.01, "fp32" if name == "fp32" else "bf16")
        (network(images).square().sum() * (scale if context.rank == 1 else 1.0)).backward()
        result[name] = flat(summed)
    result["buckets"] = [distribute(model, context, *mb).bucket_bytes_cap for mb in ((), (25.0,), (0.5,))]
    return result


def flat(model: nn.Module) -> Tensor:
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


@pytest.mark.slow
@pytest.mark.parametrize("world_size", [2, 3])
def test_sums_of_gradients(world_size: int, tmp_path: Path) -> None:
    ranks = run_ranks(gradients, world_size, tmp_path)
    own = torch.stack([rank["own"] for rank in ranks]).double()
    total, size = own.sum(0), own.abs().sum(0)
    for rank in ranks:
        assert ((rank["fp32"].double() - total).abs() <= 2.0**-23 * size * world_size).all()
        # A number is rounded once, and each partial sum again, to 8 bits.
        error = (rank["bf16"].double() - total).abs()
        assert (error <= 1.01 * world_size * 2.0**-8 * size).all()
        assert (error > 2.0**-12 * size).any(), "nothing was rounded"
        assert torch.equal(rank["bf16"], rank["bf16"].bfloat16().float())
        for name in ("fp32", "bf16"):
            assert torch.equal(rank[name], ranks[0][name]), "equal on all ranks"
        assert not rank["overflow"].isfinite().all(), "all ranks see what is not finite on one, and skip the step"
        assert rank["buckets"] == [25 * 2**20, 25 * 2**20, 2**19]
    if world_size == 2:  # a sum of two terms has one order
        assert torch.equal(ranks[0]["fp32"], ranks[0]["own"] + ranks[1]["own"])
