"""Bring the results of all ranks' images to rank 0, in the data's order."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from resnext_train.compute.loss import cross_entropy_each
from resnext_train.compute.metrics import best_classes, best_label, target_rank
from resnext_train.distributed.dist_context import DistContext
from resnext_train.evaluation.image_results import ImageResults, ResultSink

_TURNS = 16
"""Batches of each rank after which results travel: a GPU is waited for no more often."""

TOP = 5
"""Classes kept of each image."""


class ResultStream:
    """Takes the scores of this rank's batches; hands the results of all ranks to `sink` on rank 0.

    All ranks add equally often, an empty batch by `add_nothing`: they meet after every _TURNS batches.
    """

    def __init__(self, context: DistContext, sink: ResultSink | None) -> None:
        """Begin on each rank; `sink` is needed on rank 0 alone."""
        self._context, self._sink = context, sink
        self._turns: list[tuple[NDArray[np.int64], Tensor, Tensor] | None] = []

    def add(self, numbers: NDArray[np.int64], scores: Tensor, labels: Tensor) -> None:
        """Take the images `numbers` (n,) with their scores (n, classes) and labels (n,) or (n, L)."""
        label = best_label(scores, labels)
        top, probabilities = best_classes(scores, TOP)
        integers = torch.cat((label.unsqueeze(1), target_rank(scores, labels).unsqueeze(1), top), 1)
        losses = cross_entropy_each(scores, label).double().unsqueeze(1)
        self._add((numbers, integers, torch.cat((losses, probabilities), 1)))

    def add_nothing(self) -> None:
        """Take a batch without images."""
        self._add(None)

    def _add(self, turn: tuple[NDArray[np.int64], Tensor, Tensor] | None) -> None:
        self._turns.append(turn)
        if len(self._turns) == _TURNS:
            self.close()

    def close(self) -> None:
        """Hand over what is left."""
        own = [turn and (turn[0], turn[1].cpu().numpy(), turn[2].cpu().numpy()) for turn in self._turns]
        self._turns = []
        of_ranks = self._context.gather(own)
        if self._sink is None:
            return
        # Batch b is on rank b mod world_size, so by turn and then by rank they are in the data's order.
        ordered = [of_rank[turn] for turn in range(len(own)) for of_rank in of_ranks]
        if parts := [part for part in ordered if part is not None]:
            self._sink.add(_joined(parts))


def _joined(parts: Sequence[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]]) -> ImageResults:
    numbers, integers, floats = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    return ImageResults(numbers, integers[:, 0], integers[:, 1], floats[:, 0], integers[:, 2:], floats[:, 1:])
