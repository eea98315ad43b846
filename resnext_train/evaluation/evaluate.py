"""Evaluation, the same for training runs and for `resnext-eval`: every image once, counted in whole numbers."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from resnext_train.compute.loss import cross_entropy_sum
from resnext_train.compute.metrics import Counts, target_rank
from resnext_train.compute.precision import Precision
from resnext_train.data.image_batch import Group
from resnext_train.data.transforms.color_transform import Photometric
from resnext_train.distributed.dist_context import Process
from resnext_train.errors import InputError


def evaluate(
    model: nn.Module,
    blocks: Iterable[Group],
    normalise: Photometric,
    precision: Precision,
    process: Process,
    outputs: Tensor | None = None,
) -> Counts:
    """Counts over all processes' blocks; leaves the model in training mode if it was.

    Images that could not be read are left out, and counted as such.

    Which images form a block does not depend on the number of processes, so neither do the logits. Top-5 is top-k
    with k the number of classes where there are fewer than five.

    Predictions are made among the network's `outputs` (int64, None: all of them), and labels are positions there: the
    softmax knows no other class, as in the 1K-way evaluation of ImageNet-5K (ResNeXt paper, Table 6).

    Raises:
        InputError: no image could be read.
    """
    among = None if outputs is None else outputs.to(process.device)
    was_training = model.training
    model.eval()
    totals = torch.zeros(3, dtype=torch.int64, device=process.device)
    unreadable = torch.zeros(1, dtype=torch.int64, device=process.device)
    loss = torch.zeros(1, dtype=torch.float64, device=process.device)
    try:
        with torch.no_grad():
            for block in blocks:
                unreadable += block.report.missing
                if not len(block.labels):
                    continue
                pixels = normalise(block.images, None)  # outside autocast, which would round the colours
                with precision.autocast():
                    logits = model(pixels) if among is None else model(pixels)[:, among]
                rank = target_rank(logits, block.labels)
                totals += torch.stack((torch.ones_like(rank).sum(), (rank < 1).sum(), (rank < 5).sum()))
                loss += cross_entropy_sum(logits, block.labels)
    finally:
        model.train(was_training)
    process.sum_(totals)
    process.sum_(loss)
    count, top1, top5 = totals.tolist()
    if not count:
        raise InputError("no image to evaluate on can be read; `resnext-prepare check` says why")
    return Counts(count, top1, top5, loss.item(), int(process.sum_(unreadable).item()))
