"""Parameters and multiply-adds of a network, whole and by stage, counted on the meta device."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode


@dataclass(frozen=True)
class Part:
    """One top-level module of a network: what it outputs for one image and what it costs."""

    name: str
    output: tuple[int, ...]
    parameters: int
    multiply_adds: int


@dataclass(frozen=True)
class Complexity:
    """Learnable parameters, and multiply-adds for one image of `size` × `size` pixels."""

    parameters: int
    multiply_adds: int
    size: int
    parts: tuple[Part, ...]


def measure(model: nn.Module, size: int) -> Complexity:
    """Count a network built on the meta device; nothing is computed.

    Multiply-adds are those of convolutions and matrix products, half of what torch's counter calls FLOPs.
    """
    assert all(p.is_meta for p in model.parameters())
    outputs: dict[str, tuple[int, ...]] = {}

    def remember(name: str) -> object:
        def hook(module: nn.Module, inputs: object, output: Tensor) -> None:
            outputs[name] = tuple(output.shape[1:])

        return hook

    handles = [m.register_forward_hook(remember(n)) for n, m in model.named_children()]  # type: ignore[arg-type]
    counter = FlopCounterMode(display=False)
    was_training = model.training
    model.eval()
    with counter, torch.no_grad():
        model(torch.empty(1, 3, size, size, device="meta"))
    model.train(was_training)
    for handle in handles:
        handle.remove()
    flops = {name.split(".", 1)[-1]: sum(ops.values()) for name, ops in counter.get_flop_counts().items()}
    parts = tuple(
        Part(
            name=name,
            output=outputs[name],
            parameters=_parameters(module),
            multiply_adds=flops.get(name, 0) // 2,
        )
        for name, module in model.named_children()
        if name in outputs
    )
    return Complexity(_parameters(model), counter.get_total_flops() // 2, size, parts)


def _parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())
