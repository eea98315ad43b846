"""An exponential moving average of the weights, kept beside them on the device."""

from __future__ import annotations

from collections import defaultdict
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from resnext_train.config import EmaSection, duration_in_steps
from resnext_train.training.flat_tensors import in_order_of_memory, views_like


class WeightAverage:
    """average = decay · average + (1 - decay) · weights, after every `every`-th step.

    Parameters and BatchNorm's running statistics are averaged, whole numbers copied. The average begins as the weights.
    The first update, all within the warm-up, and the first one after it copy the weights: these are the rules of
    torch's AveragedModel with get_ema_multi_avg_fn(decay) and use_buffers, whose count torchvision's reference
    (references/classification/train.py) sets to 0 in its warm-up.

    A step that is not finite changes no bit and does not count; the device decides that. The average is a function of
    the weights alone, and so the same on all ranks.
    """

    def __init__(self, model: nn.Module, decay: float, every: int = 1, warmup: int = 0) -> None:
        """Begin with the present weights of `model`; `warmup` is in steps."""
        self._model, self._every, self._warmup = model, every, warmup
        of_type: dict[torch.dtype, dict[str, Tensor]] = defaultdict(dict)
        for name, tensor in model.state_dict().items():
            of_type[tensor.dtype][name] = tensor
        self._groups = [_Group(named) for named in of_type.values()]
        self._weights = {name: view for group in self._groups for name, view in group.views.items()}
        device = next(model.parameters()).device
        self._updates = torch.zeros((), dtype=torch.int64, device=device)
        """Updates that count: the finite ones from the end of the warm-up on."""
        self._copy = torch.ones((), dtype=torch.float64, device=device)
        self._move = torch.full((), 1 - decay, dtype=torch.float64, device=device)

    @torch.no_grad()
    def update(self, step: int, all_finite: Tensor) -> None:
        """Take the weights after step number `step`, where `all_finite` (bool)."""
        if (step + 1) % self._every:
            return
        weight = torch.where(self._updates > 0, self._move, self._copy)
        for group in self._groups:
            group.update(weight, all_finite)
        if step >= self._warmup:
            self._updates += all_finite

    def network(self) -> nn.Module:
        """Return a copy of the network with the average as its weights."""
        copied = deepcopy(self._model)
        copied.load_state_dict(self._weights)
        return copied

    def tensors(self) -> list[Tensor]:
        """Return all numbers of the average in few tensors."""
        return [group.average for group in self._groups]

    def state_dict(self) -> dict[str, Any]:
        return {"updates": self._updates, "weights": {name: self._weights[name] for name in self._model.state_dict()}}

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._updates.copy_(state["updates"])
        for name, view in self._weights.items():
            view.copy_(state["weights"][name])


class _Group:
    """The average of all tensors of one type in one tensor: an update launches as little for many as for one."""

    def __init__(self, named: dict[str, Tensor]) -> None:
        self._sources = [in_order_of_memory(tensor) for tensor in named.values()]
        self.average = torch.cat(self._sources)
        self.views = dict(zip(named, views_like(list(named.values()), self.average), strict=True))

    def update(self, weight: Tensor, all_finite: Tensor) -> None:
        moved = torch.cat(self._sources)
        if moved.is_floating_point():
            torch.lerp(self.average, moved, weight.to(moved.dtype), out=moved)
        # Not by a weight of 0, with which -0.0 may become 0.0, and any number NaN.
        torch.where(all_finite, moved, self.average, out=self.average)


def build_average(section: EmaSection, model: nn.Module, steps_per_epoch: int) -> WeightAverage | None:
    """Return the average that a recipe asks for, beginning with the weights of `model`; None: it asks for none."""
    if section.decay is None:
        return None
    return WeightAverage(model, section.decay, section.every, duration_in_steps(section.warmup, steps_per_epoch))
