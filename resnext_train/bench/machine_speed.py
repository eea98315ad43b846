"""What this device can do at most: a large matrix product, and a copy of memory."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median

import torch

_ROUNDS = 5


def matmul_flop_per_s(device: torch.device, dtype: torch.dtype) -> float:
    """Return the FLOP/s of a square matrix product in `dtype`: two for each multiplication and addition."""
    size = 8192 if device.type == "cuda" else 1024
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    out = torch.empty_like(a)
    return 2 * size**3 / _seconds(device, lambda: torch.mm(a, b, out=out))


def copy_bytes_per_s(device: torch.device) -> float:
    """Return the bytes/s of a copy within the device's memory, read and written ones together."""
    size = 1 << (29 if device.type == "cuda" else 26)
    source, target = (torch.zeros(size, dtype=torch.uint8, device=device) for _ in range(2))
    return 2 * size / _seconds(device, lambda: target.copy_(source))


def _seconds(device: torch.device, work: Callable[[], object]) -> float:
    """Return the median time of `work`."""
    times = []
    for _ in range(_ROUNDS + 1):  # the first chooses an algorithm and allocates
        wait_for(device)
        began = time.perf_counter()
        work()
        wait_for(device)
        times.append(time.perf_counter() - began)
    return median(times[1:])


def wait_for(device: torch.device) -> None:
    """Wait until the device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
