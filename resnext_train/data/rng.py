"""Random numbers as a function of (seed, epoch, image, repetition) or (seed, step, micro-batch).

They depend on neither the number of ranks, nor workers, nor restarts.

Each number is SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014) of
where it is used, rather than the next one of a generator. This is plain 64-bit arithmetic: it has no state to save, and
computes the draws of a whole micro-batch at once. The uniform numbers do not change with a library's version; what is
made of them by exp, log and cos may, in its last bit.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

_GAMMA = np.uint64(0x9E3779B97F4A7C15)
_MIX_1, _MIX_2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


class Use(IntEnum):
    """What numbers are drawn for: each use has streams of its own, so that no two get the same numbers."""

    ORDER = 0
    CROP_AND_COLOR = 1
    PIXELS = 2
    GENERATOR = 3
    OPERATIONS = 4
    ERASING = 5
    MIXING = 6


def _mix(state: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Apply SplitMix64's output function; numpy's uint64 arrays wrap around silently, as it needs."""
    state = (state ^ (state >> np.uint64(30))) * _MIX_1
    state = (state ^ (state >> np.uint64(27))) * _MIX_2
    return state ^ (state >> np.uint64(31))


def _streams(use: Use, seed: int, epoch: int, images: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Return the start of an independent stream for each image, (n, 1): the four words mixed in one after another."""
    state: NDArray[np.uint64] = np.zeros((1, 1), np.uint64)
    for word in (use, seed, epoch):
        state = _mix(state + _GAMMA + np.array([[word % 2**64]], np.uint64))
    return _mix(state + _GAMMA + images.astype(np.uint64)[:, None])


def _repeated(streams: NDArray[np.uint64], repetitions: NDArray[np.int64] | None) -> NDArray[np.uint64]:
    """Return the streams of each image's repetition (n,), the fifth word; those of repetition 0 are the image's own."""
    if repetitions is None:
        return streams
    words = repetitions.astype(np.uint64)[:, None]
    return np.where(words > 0, _mix(streams + _GAMMA + words), streams)


def _raw(streams: NDArray[np.uint64], count: int) -> NDArray[np.uint64]:
    """Return the first `count` numbers of each stream, (n, count)."""
    return _mix(streams + _GAMMA * np.arange(1, count + 1, dtype=np.uint64))


def uniforms(
    seed: int,
    epoch: int,
    images: NDArray[np.int64],
    count: int,
    repetitions: NDArray[np.int64] | None = None,
    use: Use = Use.CROP_AND_COLOR,
) -> NDArray[np.float64]:
    """Return `count` numbers in [0, 1) for each image in `epoch`, (n, count).

    `repetitions` (n,) says which time each image comes in the epoch, from 0; None: all for the first time.
    """
    words = _raw(_repeated(_streams(use, seed, epoch, images), repetitions), count)
    return (words >> np.uint64(11)).astype(np.float64) * 2.0**-53  # 53 bits: as many as an fp64 holds exactly


def permutation(seed: int, epoch: int, length: int) -> NDArray[np.int64]:
    """Return the order of `length` images in `epoch`: a full shuffle, by sorting random 64-bit keys."""
    keys = _raw(_streams(Use.ORDER, seed, epoch, np.zeros(1, np.int64)), length)[0]
    return np.argsort(keys, kind="stable").astype(np.int64, copy=False)


def noise(seed: int, image: int, count: int) -> NDArray[np.uint8]:
    """Return `count` random bytes for the synthetic image number `image`."""
    words: NDArray[np.uint64] = _raw(_streams(Use.PIXELS, seed, 0, np.array([image])), -(-count // 8))[0]
    return words.view(np.uint8)[:count]


def micro_batch_seed(seed: int, step: int, micro_batch: int) -> int:
    """Return the seed, below 2^63, of torch's generator for the forward pass of one micro-batch."""
    return _micro_batch_stream(Use.GENERATOR, seed, step, micro_batch) >> 1


def mixing_uniforms(seed: int, step: int, micro_batch: int, count: int) -> list[float]:
    """Return `count` numbers in [0, 1) that say how one micro-batch is mixed."""
    stream = _micro_batch_stream(Use.MIXING, seed, step, micro_batch)
    return [(_mix_int((stream + int(_GAMMA) * n) % 2**64) >> 11) * 2.0**-53 for n in range(1, count + 1)]


def _micro_batch_stream(use: Use, seed: int, step: int, micro_batch: int) -> int:
    """Return the start of a micro-batch's stream: as `_streams`, but in a tenth of the time for one number."""
    state = 0
    for word in (use, seed, step, micro_batch):
        state = _mix_int((state + int(_GAMMA) + word) % 2**64)
    return state


def _mix_int(state: int) -> int:
    state = (state ^ (state >> 30)) * int(_MIX_1) % 2**64
    state = (state ^ (state >> 27)) * int(_MIX_2) % 2**64
    return state ^ (state >> 31)
