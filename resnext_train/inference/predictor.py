"""From batches of images to predictions: the scores are those of evaluation, made the same way."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn

from resnext_train.compute.backend import deterministic_algorithms, fixed_algorithms, torch_refusals_explained
from resnext_train.compute.metrics import best_classes
from resnext_train.compute.precision import resolve_precision
from resnext_train.config import Recipe
from resnext_train.data.build_loaders import build_color_transform, memory_format, normalisation_warning
from resnext_train.data.eval_batches import EvalBatch
from resnext_train.evaluation.build_scoring import build_scoring
from resnext_train.evaluation.evaluate import Scoring, member_scores
from resnext_train.evaluation.member import Member
from resnext_train.inference.class_names import ClassNames
from resnext_train.inference.prediction import Prediction
from resnext_train.inference.stored_network import StoredNetwork
from resnext_train.models.weight_conversion import CIFAR_PORT, untaken_text


@dataclass(frozen=True)
class Predictor:
    """A network, how its images are scored, and what its classes are called."""

    member: Member
    scoring: Scoring
    names: ClassNames

    def __call__(self, batch: EvalBatch, top: int) -> list[Prediction]:
        """Return the `top` best classes of each image of a batch. Call it inside `as_in_evaluation`."""
        if not len(batch.numbers):
            return []
        scores = member_scores(self.member, batch, self.scoring)
        classes, probabilities = (tensor.tolist() for tensor in best_classes(scores, top))
        return [self._named(*pair) for pair in zip(classes, probabilities, strict=True)]

    def _named(self, numbers: list[int], probabilities: list[float]) -> Prediction:
        classes, titles = self.names.classes, self.names.titles
        return Prediction(
            tuple(classes[i] for i in numbers),
            tuple(probabilities),
            titles and tuple(titles[i] for i in numbers),
        )


def built_network(stored: StoredNetwork, device: torch.device, classes: int | None = None) -> tuple[nn.Module, str]:
    """Return a stored network of `classes` outputs (None: as the file says) on `device`, and whose names it has.

    Raises:
        InputError: the weights do not fit the recipe's network.
    """
    model, origin = stored.build(stored.outputs if classes is None else classes)
    return model.to(device, memory_format=memory_format(stored.recipe)), origin  # type: ignore[call-overload]


def doubt_about(stored: StoredNetwork, origin: str) -> str:
    """Return what may be wrong with foreign weights, or ""."""
    doubts = [untaken_text(stored.path, stored.untaken)] if stored.untaken else []
    if not stored.is_ours and f": {CIFAR_PORT}" in origin.removeprefix(str(stored.path)):
        doubts.append(normalisation_warning(stored.path, stored.recipe.data))
    return "; ".join(doubts)


def build_predictor(model: nn.Module, recipe: Recipe, names: ClassNames, device: torch.device) -> Predictor:
    """Return the predictor of a network in evaluation mode on `device`; `names` are those that may be predicted.

    Raises:
        InputError: the device does not compute in the recipe's precision.
    """
    outputs = None if names.outputs is None else names.outputs.to(device)
    precision = resolve_precision(recipe.train.precision, device)
    return Predictor(
        Member(model, build_color_transform(recipe), outputs), build_scoring(recipe.eval, None, precision), names
    )


@contextmanager
def as_in_evaluation(recipe: Recipe) -> Iterator[None]:
    """While inside, torch computes as in an evaluation: without gradients, by algorithms that are fixed.

    Raises:
        InputError: train.deterministic is set, and the network needs an operation that has no such form.
    """
    with (
        deterministic_algorithms(recipe.train.deterministic),
        fixed_algorithms(),
        torch_refusals_explained(),
        torch.no_grad(),
    ):
        yield
