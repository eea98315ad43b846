"""Sum gradients over ranks."""

import inspect

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from resnext_train.distributed.dist_context import DistContext


def distribute(model: nn.Module, context: DistContext) -> nn.Module:
    """Wrap `model` in DistributedDataParallel where there are several ranks. It sums gradients, and no buffers."""
    if context.world_size == 1:
        return model
    devices = [context.device] if context.device.type == "cuda" else None
    # RunningStatistics keeps the buffers equal. torch 2.13 renamed the argument that leaves them to it.
    renamed = "forward_sync_buffers" in inspect.signature(DistributedDataParallel).parameters
    own_buffers = {"forward_sync_buffers" if renamed else "broadcast_buffers": False}
    network = DistributedDataParallel(model, devices, gradient_as_bucket_view=True, **own_buffers)  # type: ignore[arg-type]
    network.register_comm_hook(None, _sum_bucket)
    return network


def _sum_bucket(
    state: object,
    bucket: dist.GradBucket,  # type: ignore[name-defined]
) -> torch.futures.Future[Tensor]:
    """Sum a bucket over ranks; DDP's own hook would divide by their number first."""
    work = dist.all_reduce(bucket.buffer(), async_op=True)
    assert work is not None
    return work.get_future().then(lambda future: future.value()[0])  # type: ignore[no-any-return]
