"""Evaluation, the same in training and in `resnext eval`: every image once, in integer counts."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from resnext_train.compute.backend import fixed_algorithms
from resnext_train.compute.loss import cross_entropy_each
from resnext_train.compute.metrics import EvalCounts, best_label, target_rank
from resnext_train.compute.precision import Precision
from resnext_train.data.eval_batches import EvalBatch
from resnext_train.data.transforms.eval_views import EvalViews
from resnext_train.distributed.dist_context import DistContext
from resnext_train.errors import InputError
from resnext_train.evaluation.member import Average, Member, average_scores
from resnext_train.evaluation.result_stream import ResultStream


@dataclass(frozen=True)
class Scoring:
    """How a batch's images are scored."""

    views: EvalViews
    average: Average
    pass_pixels: int
    """Pixels that a forward pass may take."""
    precision: Precision
    labels: Tensor | None = None
    """Several labels per image of the source, int64 (images, L) on the CPU, -1 fills up; None: those of the batches."""


def evaluate(
    members: Sequence[Member],
    batches: Iterable[EvalBatch],
    scoring: Scoring,
    context: DistContext,
    stream: ResultStream | None = None,
    is_ensemble: bool = False,
) -> list[EvalCounts]:
    """Evaluate the batches of all ranks: return the counts of each member; those of an ensemble of several come first.

    Images that could not be read do not count, except as unreadable. Which images form a batch does not depend on the
    number of ranks, and algorithms are fixed, so neither do the logits; losses are summed exactly, so neither does any
    number. With fewer than five classes, top-5 is always correct. `stream` takes the results that the first counts are
    of, on all ranks or on none.

    Raises:
        InputError: no image could be read.
    """
    is_averaged = is_ensemble and len(members) > 1
    tallies = [_Tally(context.device) for _ in range(len(members) + is_averaged)]
    unreadable = torch.zeros(1, dtype=torch.int64)
    with fixed_algorithms(), torch.no_grad():
        for batch in batches:
            unreadable += batch.report.missing
            if not len(batch.numbers):
                if stream:
                    stream.add_nothing()
                continue
            labels = batch.labels
            if scoring.labels is not None:
                labels = scoring.labels[batch.numbers].to(context.device, non_blocking=True)
            scores = [member_scores(member, batch, scoring) for member in members]
            if is_averaged:
                scores.insert(0, average_scores(torch.stack(scores, 1), scoring.average))
            for tally, counted in zip(tallies, scores, strict=True):
                tally.add(counted, labels)
            if stream:
                stream.add(batch.numbers, scores[0], labels)
    if stream:
        stream.close()
    left_out = int(context.all_reduce_sum(unreadable.to(context.device)).item())
    return [tally.total(context, left_out) for tally in tallies]


def member_scores(member: Member, batch: EvalBatch, scoring: Scoring) -> Tensor:
    """Return a network's scores (n, classes) of a batch, averaged over its views."""
    logits = member.view_logits(batch, scoring.views, scoring.pass_pixels, scoring.precision)
    return average_scores(logits, scoring.average)


@dataclass
class _Tally:
    """Counts and losses of one network or ensemble; they stay on the device until the end."""

    device: torch.device
    losses: list[Tensor] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.counts = torch.zeros(3, dtype=torch.int64, device=self.device)

    def add(self, scores: Tensor, labels: Tensor) -> None:
        rank = target_rank(scores, labels)
        self.counts += torch.stack((torch.ones_like(rank).sum(), (rank < 1).sum(), (rank < 5).sum()))
        self.losses.append(cross_entropy_each(scores, best_label(scores, labels)).double().sum())

    def total(self, context: DistContext, unreadable: int) -> EvalCounts:
        """Return the counts of all ranks."""
        count, top1, top5 = context.all_reduce_sum(self.counts).tolist()
        own = torch.stack(self.losses).tolist() if self.losses else []
        # Exactly rounded, and so the same in any order: a rank has other batches where there are other ranks.
        loss = math.fsum(value for of_rank in context.gather(own) for value in of_rank)
        if not count:
            raise InputError("none of the images can be read; `resnext prepare check` says why")
        return EvalCounts(count, top1, top5, loss, unreadable)
