"""Choose the size of micro-batches for another batch size. Imports no torch."""

from __future__ import annotations

from itertools import chain, count, islice

_SMALLEST = 16
"""Smallest micro-batch that is chosen for a recipe: BatchNorm's statistics of fewer images are noisy."""


class NoMicroBatchError(ValueError):
    """A batch cannot be cut into micro-batches of usual sizes; the text says what to do."""


def fitting_micro_batch(batch_size: int, usual: int) -> int:
    """Return the largest divisor of `batch_size` from 16 to the `usual` micro-batch; of a usual one under 16, itself.

    Raises:
        NoMicroBatchError: there is none; names the two nearest batch sizes that have one.
    """
    if chosen := _divisor(batch_size, usual):
        return chosen
    below = (n for n in range(batch_size - 1, 0, -1) if _divisor(n, usual))
    above = (n for n in count(batch_size + 1) if _divisor(n, usual))
    sizes = sorted(islice(chain(islice(below, 1), above), 2))
    smallest = min(_SMALLEST, usual)
    micro = f"of {smallest} to {usual} images" if smallest < usual else f"of {usual} images"
    raise NoMicroBatchError(
        f"train.batch_size ({batch_size}) cannot be cut into micro-batches {micro}; use {sizes[0]} or {sizes[1]}, or "
        "set train.micro_batch, too"
    )


def _divisor(batch_size: int, usual: int) -> int | None:
    sizes = range(usual, min(_SMALLEST, usual) - 1, -1)
    return next((size for size in sizes if batch_size % size == 0), None)
