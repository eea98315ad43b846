"""Make the host's waiting for a GPU an error."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def gpu_syncs_forbidden() -> Iterator[None]:
    """Raise RuntimeError where the host waits for the GPU while inside; the mode is put back however that ends."""
    before = torch.cuda.get_sync_debug_mode()
    try:
        _set_sync_mode("error")
        yield
    finally:
        _set_sync_mode(before)


def _set_sync_mode(mode: int | str) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*prototype feature.*")  # torch warns so at every call, whatever the mode
        torch.cuda.set_sync_debug_mode(mode)
