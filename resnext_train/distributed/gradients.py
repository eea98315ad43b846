"""Sum gradients over ranks."""

# Without `from __future__ import annotations`: torch looks at those of the hooks.
import inspect
from typing import Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from resnext_train.distributed.dist_context import DistContext

_DEFAULT_MB = 25.0
"""MiB of a bucket of torch's DistributedDataParallel."""


def distribute(
    model: nn.Module, context: DistContext, bucket_mb: float = 25.0, comm: Literal["fp32", "bf16"] = "fp32"
) -> nn.Module:
    """Wrap `model` in DistributedDataParallel where there are several ranks. It sums gradients, and no buffers.

    Gradients are summed in buckets of `bucket_mb` MiB: with `comm` fp32 as they are, with bf16 rounded to that type
    before the sum, and in it.
    """
    if context.world_size == 1:
        return model
    devices = [context.device] if context.device.type == "cuda" else None
    # RunningStatistics keeps the buffers equal. torch 2.13 renamed the argument that leaves them to it.
    renamed = "forward_sync_buffers" in inspect.signature(DistributedDataParallel).parameters
    own_buffers = {"forward_sync_buffers" if renamed else "broadcast_buffers": False}
    network = DistributedDataParallel(
        model,
        devices,
        # Only torch's own default has a small first bucket as well.
        bucket_cap_mb=None if bucket_mb == _DEFAULT_MB else bucket_mb,  # type: ignore[arg-type]  # a float will do
        gradient_as_bucket_view=True,
        **own_buffers,  # type: ignore[arg-type]
    )
    network.register_comm_hook(None, _sum_bucket if comm == "fp32" else _sum_bucket_in_bf16)
    return network


def _sum_bucket(
    state: object,
    bucket: dist.GradBucket,  # type: ignore[name-defined]
) -> torch.futures.Future[Tensor]:
    """Sum a bucket over ranks; DDP's own hook would divide by their number first."""
    work = dist.all_reduce(bucket.buffer(), async_op=True)
    assert work is not None
    return work.get_future().then(lambda future: future.value()[0])  # type: ignore[no-any-return]


def _sum_bucket_in_bf16(
    state: object,
    bucket: dist.GradBucket,  # type: ignore[name-defined]
) -> torch.futures.Future[Tensor]:
    """Sum a bucket over ranks in bf16, whose range is that of fp32: what is not finite stays so."""
    buffer = bucket.buffer()
    work = dist.all_reduce(buffer.to(torch.bfloat16), async_op=True)
    assert work is not None
    return work.get_future().then(lambda future: buffer.copy_(future.value()[0]))  # type: ignore[no-any-return]
