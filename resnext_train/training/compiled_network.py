"""torch.compile for training: once for each size of a micro-batch and its images, and never for evaluation."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from resnext_train.training.flat_tensors import views_like

GRAPH_MODES = ("reduce-overhead", "max-autotune")
"""Modes that record CUDA graphs, whose outputs the next run overwrites."""

_RECOMPILES = 64
"""Times that one function may be compiled: for each size, and where a network cannot be captured whole, each block."""


@dataclass(frozen=True)
class NetworkOptions:
    """How training calls a network: see `compile`, `bucket_mb` and `comm` of the recipe's train section."""

    compile: str = "off"
    bucket_mb: float = 25.0
    comm: Literal["fp32", "bf16"] = "fp32"

    @property
    def records_graphs(self) -> bool:
        return self.compile in GRAPH_MODES


def compiled(network: nn.Module, mode: str) -> Any:
    """Return `network` compiled in a mode of train.compile, to be called in its place; with off, itself.

    `network` and its parts stay as they are: calling those is not compiled. Shapes are never dynamic: an epoch has two
    or three sizes of micro-batches, and a program for each is faster than one for all.
    """
    if mode == "off":
        return network
    import torch._dynamo  # takes seconds

    limit = torch._dynamo.config.recompile_limit
    torch._dynamo.config.recompile_limit = max(limit, _RECOMPILES)
    return torch.compile(network, mode=mode, dynamic=False)


def zero_gradients(parameters: Iterable[nn.Parameter]) -> list[Tensor | None]:
    """Return gradients of zero for all `parameters`, in one flat piece of memory, to which backward passes can add.

    A parameter without a gradient would keep the first one that a backward pass hands it. That of a CUDA graph lies in
    the graph's own memory, which its next run overwrites.
    """
    every = list(parameters)
    trained = [p for p in every if p.requires_grad]
    flat = torch.zeros(sum(p.numel() for p in trained), dtype=trained[0].dtype, device=trained[0].device)
    parts = iter(views_like(trained, flat))
    return [next(parts) if p.requires_grad else None for p in every]
