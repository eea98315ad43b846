"""Evaluate batches that a test has made itself."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from torch import Tensor, nn

from resnext_train.compute.metrics import EvalCounts
from resnext_train.compute.precision import Precision
from resnext_train.data.eval_batches import EvalBatch, ViewGroup
from resnext_train.data.image_batch import ImageBatch, LoadReport
from resnext_train.data.transforms.color_transform import ColorTransform
from resnext_train.data.transforms.eval_views import EvalViews
from resnext_train.distributed.dist_context import DistContext
from resnext_train.evaluation.evaluate import Scoring, evaluate
from resnext_train.evaluation.member import Member

NOTHING = LoadReport(0.0, 0.0, 0.0, 0, ())


def crops(batch: EvalBatch) -> Tensor:
    """The views of a batch that has one of each image, in the images' order."""
    (group,) = batch.groups
    assert group.rows == tuple(range(len(batch.numbers)))
    return batch.images(group)


def eval_batch(images: Tensor, labels: Tensor, report: LoadReport = NOTHING) -> EvalBatch:
    """A batch of uint8 crops (n, 3, S, S), one view each."""
    count, _, height, width = images.shape
    pixels = images.permute(0, 2, 3, 1).reshape(-1)
    groups = (ViewGroup(0, height, width, tuple(range(count)), (0,) * count),) if count else ()
    return EvalBatch(pixels, groups, np.arange(count), labels, report)


def evaluated(
    model: nn.Module,
    batches: Iterable[ImageBatch],
    normalise: ColorTransform,
    precision: Precision,
    context: DistContext,
) -> EvalCounts:
    """The counts of a network on the images of `batches`, each of them one view."""
    views = EvalViews((8,), 8, ten=False, flip=False, interpolation="bicubic")
    scoring = Scoring(views, "softmax", 10**9, precision)
    given = (eval_batch(b.images, b.labels, b.report) for b in batches)
    counts = evaluate([Member(model.eval(), normalise)], given, scoring, context)[0]
    model.train()
    return counts
