"""BatchNorm running statistics that are the same for any number of ranks."""

from __future__ import annotations

from types import TracebackType

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from resnext_train.distributed.dist_context import DistContext


class RunningStatistics:
    """BatchNorm running statistics that move once per step, by the mean over the step's micro-batches on all ranks.

    PyTorch moves them in every forward pass: eight times a step on one rank with eight micro-batches, once on eight
    ranks. While inside this context, each pass leaves its own statistics in the buffers (momentum 1), they are summed
    over micro-batches and ranks, and the step commits their mean with the module's own momentum. So the buffers are
    equal on all ranks after every step, and depend neither on the number of ranks nor on the order of micro-batches.

    The modules stay ordinary ones: between steps their buffers are those of a model that took one forward pass a step,
    and on leaving the context, be it by an error inside a step, they have their own momentum again. A momentum of None
    is PyTorch's: the cumulative mean over all steps.

    One flat tensor is summed over ranks, so that one all-reduce serves the statistics and the loss of each micro-batch,
    by which all ranks know which are finite.
    """

    def __init__(self, model: nn.Module, context: DistContext, micro_batches: int) -> None:
        self._context, self._micro_batches = context, micro_batches
        self._modules = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.num_batches_tracked is not None]
        self._momenta: list[float | None] = []
        buffers = [b for m in self._modules for b in (m.running_mean, m.running_var) if b is not None]
        self._buffers = [b.view(-1) for b in buffers]
        self._batches = [m.num_batches_tracked.view(1) for m in self._modules if m.num_batches_tracked is not None]
        sizes = [b.numel() for b in self._buffers]
        dtype = buffers[0].dtype if buffers else None
        self._sum = torch.zeros(sum(sizes) + micro_batches, dtype=dtype, device=context.device)
        self._shard = torch.zeros_like(self._sum)
        self._statistics_sum, self._loss_sum = self._sum.split([sum(sizes), micro_batches])
        shard_statistics, self._shard_losses = self._shard.split([sum(sizes), micro_batches])
        self._shard_parts = shard_statistics.split(sizes)
        self._running = torch.zeros_like(self._statistics_sum)
        self._running_parts = self._running.split(sizes)
        self._count = torch.zeros(len(self._batches), dtype=torch.int64, device=context.device)
        self._weight = torch.zeros_like(self._running)
        self._weight_parts = self._weight.split(sizes)
        self._work: dist.Work | None = None

    def __enter__(self) -> RunningStatistics:
        self._momenta = [m.momentum for m in self._modules]
        for i, (module, momentum) in enumerate(zip(self._modules, self._momenta, strict=True)):
            for weight in self._weight_parts[2 * i : 2 * i + 2]:
                weight.fill_(0.0 if momentum is None else momentum)
            module.momentum = 1.0
        for sums in (self._shard, self._sum):
            sums.zero_()  # a step that ended with an error may have left something
        self._work = None
        self.begin()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for module, momentum in zip(self._modules, self._momenta, strict=True):
            module.momentum = momentum
        self._momenta = []
        if error is not None:
            self.restore()  # a step that ends with an error leaves a micro-batch's own statistics in the buffers

    def begin(self) -> None:
        """Begin a step: remember the buffers as they are, whether the step before or a checkpoint left them so."""
        assert not self._modules or self._momenta, "a step outside the context would leave wrong statistics"
        if self._modules:
            torch.cat(self._buffers, out=self._running)
            torch.cat(self._batches, out=self._count)

    def accumulate(self, number: int, loss: Tensor) -> None:
        """Add the statistics that a micro-batch's forward pass has left in the buffers, and its loss."""
        if self._modules:
            torch._foreach_add_(self._shard_parts, self._buffers)
        self._shard_losses[number] = loss

    def end_shard(self, last: bool) -> None:
        """End a shard after its last forward pass. The all-reduce of the last one overlaps its backward pass."""
        self._sum += self._shard
        self._shard.zero_()
        if last and self._context.world_size > 1:
            self._work = dist.all_reduce(self._sum, async_op=True)

    def are_finite(self) -> tuple[Tensor, Tensor]:
        """Return whether all statistics are finite (bool), and whether each micro-batch's loss is: bool (M,)."""
        if self._work is not None:
            self._work.wait()
            self._work = None
        return self._statistics_sum.isfinite().all(), self._loss_sum.isfinite()

    def commit(self, all_finite: Tensor) -> None:
        """End the step: where `all_finite` (bool), move by the mean over its micro-batches."""
        for i, momentum in enumerate(self._momenta):
            if momentum is None:
                for weight in self._weight_parts[2 * i : 2 * i + 2]:
                    weight.copy_(1.0 / (self._count[i] + 1))
        moved = self._running.lerp(self._statistics_sum / self._micro_batches, self._weight)
        torch.where(all_finite, moved, self._running, out=self._running)
        self._count += all_finite
        self.restore()
        self._sum.zero_()

    def restore(self) -> None:
        """Put the buffers back as they were when the step began, or as it has committed them."""
        if self._modules:
            torch._foreach_copy_(self._buffers, self._running_parts)
            torch._foreach_copy_(self._batches, self._count.split(1))
