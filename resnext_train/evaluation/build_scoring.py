"""Build what an eval section says of scores."""

from __future__ import annotations

import torch

from resnext_train.compute.precision import Precision
from resnext_train.config import EvalSection
from resnext_train.data.build_loaders import Evaluation, build_views
from resnext_train.evaluation.evaluate import Scoring


def build_scoring(section: EvalSection, evaluation: Evaluation | None, precision: Precision) -> Scoring:
    """Return how the images of an evaluation are scored; None: images without labels."""
    labels = None if evaluation is None or evaluation.labels is None else torch.from_numpy(evaluation.labels)
    pass_pixels = section.batch_size * section.crop**2
    return Scoring(build_views(section), section.average, pass_pixels, precision, labels)
