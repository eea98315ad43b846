"""BatchNorm running statistics that are the same for any number of ranks."""

from __future__ import annotations

from types import TracebackType

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


class RunningStatistics:
    """BatchNorm running statistics that move once per step, by the mean over the step's micro-batches on all ranks.

    PyTorch moves them in every forward pass: eight times a step on one rank with eight micro-batches, once on eight
    ranks. While inside this context, each pass of a step leaves its own statistics in buffers that take the modules'
    place (momentum 1), they are summed over micro-batches and ranks, and the step commits their mean with the module's
    own momentum. So the buffers are equal on all ranks after every step, and depend neither on the number of ranks nor
    on the order of micro-batches.

    The modules stay ordinary ones: between steps their buffers are those of a model that took one forward pass a step,
    and on leaving the context, be it by an error inside a step, they have their own momentum again. A momentum of None
    is PyTorch's: the cumulative mean over all steps.
    """

    def __init__(self, model: nn.Module, device: torch.device) -> None:
        self._modules = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.num_batches_tracked is not None]
        self._momenta: list[float | None] = []
        buffers = [b for m in self._modules for b in (m.running_mean, m.running_var) if b is not None]
        self._buffers = [b.view(-1) for b in buffers]
        self._batches = [m.num_batches_tracked.view(1) for m in self._modules if m.num_batches_tracked is not None]
        self._sizes = [b.numel() for b in self._buffers]
        self.dtype = buffers[0].dtype if buffers else torch.float32
        self._running = torch.zeros(sum(self._sizes), dtype=self.dtype, device=device)
        self._running_parts = self._running.split(self._sizes)
        self._count = torch.zeros(len(self._batches), dtype=torch.int64, device=device)
        self._weight = torch.zeros_like(self._running)
        self._weight_parts = self._weight.split(self._sizes)
        self._own = [dict(m._buffers) for m in self._modules]
        # Without a count of batches, which the forward pass would raise for nothing, torch takes the momentum as it is.
        self._of_a_pass = [
            {**own, "num_batches_tracked": None}
            | {name: torch.zeros_like(b) for name in ("running_mean", "running_var") if (b := own[name]) is not None}
            for own in self._own
        ]
        names = ("running_mean", "running_var")
        self._passed = [
            b.view(-1) for of_a_pass in self._of_a_pass for name in names if (b := of_a_pass[name]) is not None
        ]

    @property
    def size(self) -> int:
        """How many numbers the statistics are."""
        return len(self._running)

    def parts(self, statistics: Tensor) -> list[Tensor]:
        """Return the part of each buffer in `statistics` (size,)."""
        return list(statistics.split(self._sizes))

    def __enter__(self) -> RunningStatistics:
        self._momenta = [m.momentum for m in self._modules]
        for i, (module, momentum) in enumerate(zip(self._modules, self._momenta, strict=True)):
            for weight in self._weight_parts[2 * i : 2 * i + 2]:
                weight.fill_(0.0 if momentum is None else momentum)
            module.momentum = 1.0
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for module, momentum in zip(self._modules, self._momenta, strict=True):
            module.momentum = momentum
        self._momenta = []
        self.restore()  # a step that ends with an error leaves those of a pass

    def begin(self) -> None:
        """Begin a step: from here on each forward pass leaves its own statistics."""
        assert not self._modules or self._momenta, "a step outside the context would leave wrong statistics"
        if self._modules:
            torch._foreach_zero_(self._passed)  # 0 · NaN of a step before would be NaN
        self._put(self._of_a_pass)

    def accumulate(self, parts: list[Tensor]) -> None:
        """Add the statistics of the last forward pass to `parts`, see there."""
        if self._modules:
            torch._foreach_add_(parts, self._passed)

    def commit(self, mean: Tensor, all_finite: Tensor) -> None:
        """End the step: where `all_finite` (bool), move by the `mean` (size,) over its micro-batches."""
        if not self._modules:
            return
        torch.cat(self._buffers, out=self._running)
        torch.cat(self._batches, out=self._count)
        for i, momentum in enumerate(self._momenta):
            if momentum is None:
                for weight in self._weight_parts[2 * i : 2 * i + 2]:
                    weight.copy_(1.0 / (self._count[i] + 1))
        moved = self._running.lerp(mean, self._weight)
        torch.where(all_finite, moved, self._running, out=self._running)
        self._count += all_finite
        torch._foreach_copy_(self._buffers, self._running_parts)
        torch._foreach_copy_(self._batches, self._count.split(1))
        self.restore()

    def restore(self) -> None:
        """Give the modules their own buffers back, as they were when the step began or as it has committed them."""
        self._put(self._own)

    def _put(self, buffers: list[dict[str, Tensor | None]]) -> None:
        for module, of_module in zip(self._modules, buffers, strict=True):
            module._buffers.update(of_module)
