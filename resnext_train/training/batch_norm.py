"""BatchNorm running statistics that are the same for any number of ranks."""

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from resnext_train.distributed.dist_context import DistContext


class RunningStatistics:
    """BatchNorm running statistics that move once per step, by the mean over the step's micro-batches on all ranks.

    PyTorch moves them in every forward pass: eight times a step on one rank with eight micro-batches, once on eight
    ranks. Here each pass leaves its own statistics in the buffers (momentum 1), they are accumulated over micro-batches
    and ranks, and the step commits them with the module's own momentum. So the buffers are equal on all ranks after
    every step, and depend neither on the number of ranks nor on the order of micro-batches.

    The loss of each micro-batch travels in the same all-reduce, so that all ranks know which are finite.
    """

    def __init__(self, model: nn.Module, context: DistContext, micro_batches: int) -> None:
        modules = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.running_mean is not None]
        self._context = context
        buffers = [b for m in modules for b in (m.running_mean, m.running_var) if b is not None]
        self._buffers = _Flat(buffers, context.device)
        batches = [m.num_batches_tracked for m in modules if m.num_batches_tracked is not None]
        self._batches = _Flat(batches, context.device)
        for i, module in enumerate(modules):
            module.running_mean, module.running_var = self._buffers.parts[2 * i : 2 * i + 2]
            module.num_batches_tracked = self._batches.parts[i]
        momenta = [m.momentum if m.momentum is not None else 0.1 for m in modules for _ in range(2)]
        self._momentum = _Flat(
            [torch.full_like(b, v) for b, v in zip(buffers, momenta, strict=True)], context.device
        ).whole
        for module in modules:
            module.momentum = 1.0
        self._running = self._buffers.whole.clone()
        self._count = self._batches.whole.clone()
        self._micro_batches, self._size = micro_batches, self._running.numel()
        # One flat tensor for one all-reduce: the statistics, then the loss of each micro-batch.
        self._shard = self._running.new_zeros(self._size + micro_batches)
        self._total = torch.zeros_like(self._shard)
        self._work: dist.Work | None = None

    def reload(self) -> None:
        """Start from the buffers as they are, after a checkpoint was loaded into the model."""
        self._running.copy_(self._buffers.whole)
        self._count.copy_(self._batches.whole)

    def reset(self) -> None:
        """Put the buffers back as they were after the last step."""
        self._buffers.whole.copy_(self._running)
        self._batches.whole.copy_(self._count)

    def accumulate(self, number: int, loss: Tensor) -> None:
        """Add the statistics that a micro-batch's forward pass has left in the buffers, and its loss."""
        self._shard[: self._size] += self._buffers.whole
        self._shard[self._size + number] = loss

    def end_shard(self, last: bool) -> None:
        """End a shard after its last forward pass. The all-reduce of the last one overlaps its backward pass."""
        self._total += self._shard
        self._shard.zero_()
        if last and self._context.world_size > 1:
            self._work = dist.all_reduce(self._total, async_op=True)

    def is_finite(self) -> Tensor:
        """Return whether all statistics are finite, then whether each of M micro-batches' loss is: bool (1 + M,)."""
        if self._work is not None:
            self._work.wait()
            self._work = None
        is_finite = self._total.isfinite()
        return torch.cat((is_finite[: self._size].all().unsqueeze(0), is_finite[self._size :]))

    def commit(self, all_finite: Tensor) -> None:
        """End the step: where `all_finite` (bool), move by the mean over its micro-batches."""
        moved = self._running.lerp(self._total[: self._size] / self._micro_batches, self._momentum)
        torch.where(all_finite, moved, self._running, out=self._running)
        self._count += all_finite
        self.reset()
        self._total.zero_()


class _Flat:
    """Tensors of one type as views of one flat tensor, so that one operation handles all."""

    def __init__(self, tensors: list[Tensor], device: torch.device) -> None:
        self.whole = torch.cat([t.reshape(-1) for t in tensors]) if tensors else torch.zeros(0, device=device)
        sizes = [t.numel() for t in tensors]
        self.parts = [p.view_as(t) for p, t in zip(self.whole.split(sizes), tensors, strict=True)]
