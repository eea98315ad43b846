"""Made-up results of an evaluation."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from resnext_train.evaluation.image_results import ImageResults


def results_of(images: int, classes: int, seed: int = 0, skipped: tuple[int, ...] = ()) -> ImageResults:
    """Return results of random logits that favour the label; the images `skipped` could not be read."""
    rng = np.random.default_rng(seed)
    numbers = np.setdiff1d(np.arange(images), np.array(skipped, np.int64))
    labels = rng.integers(classes, size=len(numbers))
    logits = rng.normal(size=(len(numbers), classes))
    logits[np.arange(len(numbers)), labels] += 1.5
    scores = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    order = np.argsort(-scores, axis=1)
    best = order[:, :5]
    ranks = (order == labels[:, None]).argmax(1)
    losses = -np.log(scores[np.arange(len(numbers)), labels])
    return ImageResults(numbers, labels, ranks, losses, best, np.take_along_axis(scores, best, 1))


def chunked(results: ImageResults, sizes: Iterable[int]) -> Iterator[ImageResults]:
    """Yield the results in chunks of these sizes."""
    start = 0
    for size in sizes:
        yield ImageResults._make(column[start : start + size] for column in results)
        start += size
    assert start == len(results.numbers)
