"""Many tensors as one: what is launched for all of them at once costs a GPU's host as little as for one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor


def in_order_of_memory(tensor: Tensor) -> Tensor:
    """Return all numbers of a tensor without gaps, such as a channels-last one, as (n,) in the same memory."""
    last = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    assert last + 1 == tensor.numel(), "a tensor with gaps in its memory"
    return tensor.as_strided((tensor.numel(),), (1,))


def flattened(tensors: Iterable[Tensor]) -> Tensor:
    """Return a copy of all numbers of tensors of one type, (n,)."""
    return torch.cat([in_order_of_memory(tensor) for tensor in tensors])


def views_like(tensors: Sequence[Tensor], flat: Tensor) -> list[Tensor]:
    """Return parts of `flat` (n,) with the shapes and layouts of `tensors`, which have n numbers in all."""
    parts = flat.split([tensor.numel() for tensor in tensors])
    return [p.as_strided(t.shape, t.stride(), p.storage_offset()) for t, p in zip(tensors, parts, strict=True)]
