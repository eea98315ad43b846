"""What the formats of graphs share: a batch of any size, and refusals in a sentence."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch.export import Dim

from resnext_train.errors import InputError

BATCH = Dim("batch")
"""The number of images."""


@contextmanager
def graph_captured(target: str) -> Iterator[None]:
    """Turn what torch and other libraries raise on a network that they cannot take into an InputError.

    Raises:
        InputError: names the reason, and safetensors instead.
    """
    try:
        yield
    except (InputError, MemoryError, OSError):
        raise
    except Exception as error:  # these libraries raise exceptions of many kinds
        reason = str(error).strip().partition("\n")[0][:300] or type(error).__name__
        raise InputError(f"this network cannot be written for {target}: {reason}; export it as .safetensors") from error
