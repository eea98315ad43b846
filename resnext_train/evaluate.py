"""Evaluation, the same for training runs and for `resnext-eval`: every image once, counted in whole numbers."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from resnext_train.data.loader import Group
from resnext_train.data.photometric import Photometric
from resnext_train.distributed import Process
from resnext_train.losses import cross_entropy_sum
from resnext_train.metrics import Counts, target_rank
from resnext_train.precision import Precision


def evaluate(
    model: nn.Module, blocks: Iterable[Group], normalise: Photometric, precision: Precision, process: Process
) -> Counts:
    """Counts over all processes' blocks; leaves the model in training mode if it was.

    Which images form a block does not depend on the number of processes, so neither do the logits. Top-5 is top-k
    with k the number of classes where there are fewer than five.
    """
    was_training = model.training
    model.eval()
    totals = torch.zeros(3, dtype=torch.int64, device=process.device)
    loss = torch.zeros(1, dtype=torch.float64, device=process.device)
    with torch.no_grad():
        for block in blocks:
            images, labels, _ = block.to(process.device)
            pixels = normalise(images, None)  # outside autocast, which would round the colours
            with precision.autocast():
                logits = model(pixels)
            rank = target_rank(logits, labels)
            totals += torch.stack((torch.ones_like(rank).sum(), (rank < 1).sum(), (rank < 5).sum()))
            loss += cross_entropy_sum(logits, labels)
    model.train(was_training)
    process.sum_(totals)
    process.sum_(loss)
    count, top1, top5 = totals.tolist()
    return Counts(count, top1, top5, loss.item())
