"""Classify the images of a list, of any length, in constant memory."""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator

from torch import nn

from resnext_train.config import Recipe
from resnext_train.data.batch_datasets import reason_in
from resnext_train.data.build_loaders import build_eval_loader, check_memory, images_per_batch
from resnext_train.data.eval_batches import EvalBatch
from resnext_train.data.loader_workers import worker_count, worker_deaths_explained
from resnext_train.data.sources.image_files import ImageFiles
from resnext_train.distributed.dist_context import DistContext
from resnext_train.evaluation.inference_network import inference_network
from resnext_train.inference.class_names import names_of
from resnext_train.inference.prediction import ImageRow, PredictionRequest
from resnext_train.inference.predictor import as_in_evaluation, build_predictor, built_network, doubt_about
from resnext_train.inference.stored_network import StoredNetwork, read_network
from resnext_train.run_dir.console import evaluation_shown, print_warning


class PredictionJob:
    """Images of a list, and the network that is to classify them, on its device."""

    def __init__(self, request: PredictionRequest, images: ImageFiles, context: DistContext) -> None:
        """Read the network.

        Raises:
            InputError: it cannot be read, or not be used with these class names, at these sizes, or on this device.
        """
        stored = read_network(request.checkpoint, request.recipe, request.overrides, request.weights)
        stored.check_view_sizes()
        self.names = names_of(stored, request.classes, "--classes").predicted(stored.recipe.eval)
        """The classes that may be predicted."""
        self._images, self._context, self._top = images, context, request.top
        self._recipe = _with_few_workers(stored.recipe, len(images), context)
        check_memory(self._recipe, context, train=False)
        self._predictor = build_predictor(_network(stored, context), stored.recipe, self.names, context.device)

    def rows(self, is_shown: bool) -> Generator[ImageRow, None, None]:
        """Yield a row for each image, in order; `is_shown`: with the progress on stdout. Warn of what cannot be read.

        Raises:
            InputError: images cannot be loaded for another reason than their own.
        """
        loader = build_eval_loader(self._recipe, self._images, self._context, print_warning, skipped=math.inf)
        done = 0
        try:
            with as_in_evaluation(self._recipe), worker_deaths_explained():
                for batch in evaluation_shown(loader, len(self._images), 1, is_shown, verb="classifying"):
                    yield from self._rows_of(batch, done)
                    done += batch.asked
        finally:
            loader.close()

    def _rows_of(self, batch: EvalBatch, first: int) -> Iterator[ImageRow]:
        """Yield the rows of a batch, whose images are those of the list from `first` on."""
        predictions = dict(zip(batch.numbers.tolist(), self._predictor(batch, self._top), strict=True))
        sentences = iter(batch.report.unreadable)  # of the others, in order
        for i in range(first, first + batch.asked):
            path = self._images.name(i)
            error = "" if i in predictions else reason_in(next(sentences), path)
            yield ImageRow(path, predictions.get(i), error)


def _with_few_workers(recipe: Recipe, images: int, context: DistContext) -> Recipe:
    """Return the recipe with no more loader processes than there are batches, and none for a single batch."""
    batches = -(-images // images_per_batch(recipe.eval))
    workers = min(worker_count(recipe.data.workers, context.cores), batches if batches > 1 else 0)
    return recipe.model_copy(update={"data": recipe.data.model_copy(update={"workers": workers})})


def _network(stored: StoredNetwork, context: DistContext) -> nn.Module:
    """Return the network for inference, on the device; warn of what may be wrong with foreign weights."""
    model, origin = built_network(stored, context.device)
    if stored.kind:
        print_warning(f"weights: {stored.path}: {stored.kind_text}")
    if not stored.is_ours:
        print_warning(f"weights: {origin}")
        if doubt := doubt_about(stored, origin):
            print_warning(f"warning: {doubt}")
    return inference_network(model)
