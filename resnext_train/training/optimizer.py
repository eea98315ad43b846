"""The optimizer, and its step where everything is finite."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_
from torch.optim import SGD, AdamW, Optimizer, RMSprop

from resnext_train.compute.step_parts import part
from resnext_train.config import AdamwSection, OptimizerSection, RmspropSection, SgdSection
from resnext_train.errors import InputError
from resnext_train.training.flat_tensors import flattened, views_like
from resnext_train.training.lamb import Lamb


def build_optimizer(section: OptimizerSection, model: nn.Module) -> Optimizer:
    """Build the optimizer, whose learning rate each step sets.

    Without `decay_1d`, vectors (BatchNorm, biases) are in a parameter group without decay.
    """
    groups = [
        {"params": [p for p in model.parameters() if p.ndim > 1], "weight_decay": section.weight_decay},
        {
            "params": [p for p in model.parameters() if p.ndim <= 1],
            "weight_decay": section.weight_decay if section.decay_1d else 0.0,
        },
    ]
    optimizer = _empty_optimizer(section, groups)
    _start_state(optimizer)
    return optimizer


def _empty_optimizer(section: OptimizerSection, groups: list[dict[str, Any]]) -> Optimizer:
    """Build the optimizer without state.

    PyTorch's SGD equals that of Torch 7, which the papers used: the momentum buffer starts as the first gradient,
    without dampening, and weight decay is added to the gradient.
    """
    rate = section.peak_lr(256)
    if isinstance(section, SgdSection):
        return SGD(groups, rate, momentum=section.momentum, nesterov=section.nesterov, fused=True)
    if isinstance(section, RmspropSection):
        return RMSprop(groups, rate, section.decay, section.epsilon, momentum=section.momentum, foreach=True)
    betas = (section.beta1, section.beta2)
    if isinstance(section, AdamwSection):
        return AdamW(groups, rate, betas, section.epsilon, fused=True)
    return Lamb(groups, rate, betas, section.epsilon)


_AVERAGES: dict[type[Optimizer], tuple[str, ...]] = {
    SGD: (),
    RMSprop: ("square_avg",),
    AdamW: ("exp_avg", "exp_avg_sq"),
    Lamb: ("exp_avg", "exp_avg_sq"),
}
"""The state of each parameter beside momentum. Optimizers with averages also count the steps."""


def _start_state(optimizer: Optimizer) -> None:
    """Make state that is not there yet, as zeros. Torch does so in the first step, but wrongly if that is skipped.

    Step counters are on the device, where a step is taken back.
    """
    averages = _AVERAGES[type(optimizer)]
    for group in optimizer.param_groups:
        names = (*averages, "momentum_buffer") if group.get("momentum") else averages
        for parameter in group["params"]:
            state = optimizer.state[parameter]
            for name in names:
                state.setdefault(name, torch.zeros_like(parameter))
            if averages:
                state.setdefault("step", torch.zeros((), device=parameter.device))


Gradients = list[Tensor | None]
"""The gradient of each parameter, in their order."""


class FiniteOptimizer:
    """An optimizer that takes a step only where its gradient is finite, and clips the gradient's norm first.

    The device decides; the host does not wait for it.
    """

    def __init__(
        self, model: nn.Module, optimizer: Optimizer, scaler: torch.amp.GradScaler, clip_norm: float | None = None
    ) -> None:
        self._parameters = list(model.parameters())
        self.optimizer, self.scaler, self._clip_norm = optimizer, scaler, clip_norm
        self.norms: Tensor | None = None
        """The norm of each parameter's gradient in the last step, before clipping (n,); None before the first."""
        self._skips = torch.zeros((), dtype=torch.float32, device=self._parameters[0].device)

    def gradients(self) -> Gradients:
        """Return the gradients that the parameters hold."""
        return [p.grad for p in self._parameters]

    def hold(self, gradients: Gradients | None) -> None:
        """Let the parameters hold `gradients`; None: no gradients."""
        for parameter, gradient in zip(self._parameters, gradients or [None] * len(self._parameters), strict=True):
            parameter.grad = gradient

    def backward(self, loss: Tensor) -> None:
        """Add the gradient of `loss`, scaled for fp16, to what the parameters hold."""
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]

    def step(self, lr: float, largest: Tensor) -> Tensor:
        """Take a step where `largest`, a scalar, and the gradient's norm are finite; return whether (bool)."""
        for settings in self.optimizer.param_groups:
            settings["lr"] = lr
        self.scaler.unscale_(self.optimizer)
        held = [p.grad for p in self._parameters if p.grad is not None]
        # As torch's get_total_norm, in three calls whatever their number.
        self.norms = torch.stack(torch._foreach_norm(held))
        norm = torch.linalg.vector_norm(self.norms)
        all_finite = torch.maximum(largest, norm) < torch.inf  # NaN is not
        if self._clip_norm is not None:
            clip_grads_with_norm_(self._parameters, self._clip_norm, norm)
        with part("optimizer"):
            self._step_where(all_finite)
        self.scaler.update()
        return all_finite

    def may_lower_scale(self) -> Tensor | None:
        """Return whether the loss is scaled by more than 1 (bool); None where it is not scaled at all.

        An overflow then is no fault: the scaler looks for the largest scale that has none by trying.
        """
        if not self.scaler.is_enabled():
            return None
        scale = self.scaler._get_scale_async()  # the public one waits for the device
        assert scale is not None, "no backward pass was scaled"
        return scale > 1

    def _step_where(self, all_finite: Tensor) -> None:
        """Take the step where `all_finite` is true, else leave weights and the optimizer's state as they are."""
        optimizer = self.optimizer
        if optimizer.defaults.get("fused") or isinstance(optimizer, Lamb):  # which skip by themselves on this flag
            optimizer.found_inf = torch.eq(all_finite, 0, out=self._skips)  # type: ignore[attr-defined]
            optimizer.step()
            del optimizer.found_inf  # type: ignore[attr-defined]
            return
        of_type: dict[torch.dtype, list[Tensor]] = defaultdict(list)
        for tensor in (*self._parameters, *(t for state in optimizer.state.values() for t in state.values())):
            of_type[tensor.dtype].append(tensor.detach())
        before = [flattened(tensors) for tensors in of_type.values()]
        optimizer.step()
        for tensors, old in zip(of_type.values(), before, strict=True):
            torch._foreach_copy_(tensors, views_like(tensors, torch.where(all_finite, flattened(tensors), old)))

    def state_dict(self) -> dict[str, Any]:
        return self.optimizer.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load the state but keep the settings: those are the recipe's, which may have been changed on purpose.

        Raises:
            InputError: it is the state of other parameters.
        """
        groups = self.optimizer.param_groups
        _check_fits(state, groups)
        settings = [{k: v for k, v in group.items() if k != "params"} for group in groups]
        self.optimizer.load_state_dict(state)
        for group, own in zip(self.optimizer.param_groups, settings, strict=True):
            # Each step sets the rate. A run with none left to take saves that of its last one again.
            group.update({**own, "lr": group.get("lr", own["lr"])})
        for parameter, held in self.optimizer.state.items():
            for name in [name for name, tensor in held.items() if tensor is None]:
                del held[name]
            for name, tensor in held.items():  # of a run with another memory layout, or on another device
                if name == "step":
                    held[name] = tensor.to(parameter.device, torch.float32)
                elif tensor.stride() != parameter.stride():
                    held[name] = torch.empty_like(parameter, dtype=tensor.dtype).copy_(tensor)
        _start_state(self.optimizer)  # what the checkpoint lacks starts as in a new run


def _check_fits(state: dict[str, Any], groups: list[dict[str, Any]]) -> None:
    """Raise InputError unless a state dict's tensors have the shapes of the parameters in `groups`."""
    numbers = [group["params"] for group in state["param_groups"]]
    fits = [len(group) for group in numbers] == [len(group["params"]) for group in groups]
    for group, own in zip(numbers, groups, strict=False):
        for number, parameter in zip(group, own["params"], strict=False):
            for name, tensor in state["state"].get(number, {}).items():
                shape = torch.Size() if name == "step" else parameter.shape
                fits &= tensor is None or tensor.shape == shape
    if not fits:
        raise InputError("the checkpoint holds the optimizer's state of other parameters than the network has")


def add_gradients(total: Gradients | None, more: Gradients) -> Gradients:
    """Return the sum of two gradients, of which `total` is None or is overwritten."""
    if total is None:
        return more
    both = [(t, m) for t, m in zip(total, more, strict=True) if t is not None and m is not None]
    torch._foreach_add_([t for t, _ in both], [m for _, m in both])
    return [m if t is None else t for t, m in zip(total, more, strict=True)]
