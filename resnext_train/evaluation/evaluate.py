"""Evaluation, the same in training and in `resnext eval`: every image once, in integer counts."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from resnext_train.compute.backend import fixed_algorithms
from resnext_train.compute.loss import cross_entropy_sum
from resnext_train.compute.metrics import EvalCounts, target_rank
from resnext_train.compute.precision import Precision
from resnext_train.data.image_batch import ImageBatch
from resnext_train.data.transforms.color_transform import ColorTransform
from resnext_train.distributed.dist_context import DistContext
from resnext_train.errors import InputError


def evaluate(
    model: nn.Module,
    batches: Iterable[ImageBatch],
    normalise: ColorTransform,
    precision: Precision,
    context: DistContext,
    outputs: Tensor | None = None,
) -> EvalCounts:
    """Evaluate the batches of all ranks and return the counts; leave the model in training mode if it was.

    Images that could not be read do not count, except as unreadable. Which images form a batch does not depend on the
    number of ranks, and algorithms are fixed, so neither do the logits: call it with a model that is not compiled. With
    fewer than five classes, top-5 is always correct.

    Predictions are made among the network's `outputs` (int64; None: all), and labels are positions there: the softmax
    knows no other class, as in the 1K-way evaluation of ImageNet-5K (ResNeXt paper, Table 6).

    Raises:
        InputError: no image could be read.
    """
    class_outputs = None if outputs is None else outputs.to(context.device)
    was_training = model.training
    dtype = precision.compute_dtype(torch.float32)
    model.eval()
    totals = torch.zeros(3, dtype=torch.int64, device=context.device)
    unreadable = torch.zeros(1, dtype=torch.int64, device=context.device)
    loss = torch.zeros(1, dtype=torch.float64, device=context.device)
    try:
        with fixed_algorithms(), torch.no_grad():
            for batch in batches:
                unreadable += batch.report.missing
                if not len(batch.labels):
                    continue
                pixels = normalise(batch.images, None, dtype)  # outside autocast, which would compute in fewer bits
                with precision.autocast():
                    logits = model(pixels) if class_outputs is None else model(pixels)[:, class_outputs]
                rank = target_rank(logits, batch.labels)
                totals += torch.stack((torch.ones_like(rank).sum(), (rank < 1).sum(), (rank < 5).sum()))
                loss += cross_entropy_sum(logits, batch.labels)
    finally:
        model.train(was_training)
    context.all_reduce_sum(totals)
    context.all_reduce_sum(loss)
    count, top1, top5 = totals.tolist()
    if not count:
        raise InputError("none of the images can be read; `resnext prepare check` says why")
    return EvalCounts(count, top1, top5, loss.item(), int(context.all_reduce_sum(unreadable).item()))
