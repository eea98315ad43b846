"""A trained network as an object of a program."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any, cast, overload

import numpy as np
import torch
from torch import Tensor, nn

from resnext_train.checkpoint.checkpoint_path import checkpoint_path
from resnext_train.checkpoint.stored_weights import Kind
from resnext_train.config import Recipe, loaded_recipe
from resnext_train.data.build_loaders import build_color_transform, build_views, images_per_batch
from resnext_train.data.eval_batches import EvalBatch, EvalBatches
from resnext_train.data.image_batch import UnreadableImage
from resnext_train.data.sampler import BatchIndices
from resnext_train.data.sources.given_images import GivenImage, GivenImages, is_given_image
from resnext_train.distributed.dist_context import pick_device
from resnext_train.distributed.rank import this_rank
from resnext_train.errors import InputError
from resnext_train.evaluation.inference_network import inference_network
from resnext_train.inference.class_names import ClassNames, names_of
from resnext_train.inference.prediction import Prediction
from resnext_train.inference.predictor import as_in_evaluation, build_predictor, built_network, doubt_about
from resnext_train.inference.stored_network import read_network
from resnext_train.models.architecture import check_network


class Classifier(nn.Module):
    """A network with its recipe and the names of its classes. `load` makes one.

    It is an ordinary module, in evaluation mode at first, and may be trained further.

    >>> classifier = load("runs/smoke", device="cpu")
    >>> image = torch.zeros(3, 64, 64, dtype=torch.uint8)
    >>> classifier(classifier.preprocess(image)).shape
    torch.Size([1, 10])
    >>> classifier.predict(image, top=2).classes == classifier.predict([image])[0].classes[:2]
    True
    """

    recipe: Recipe
    """The recipe: its sections data and eval say which pixels the network sees, and what is averaged."""
    classes: tuple[str, ...]
    """The name of each output."""
    titles: tuple[str, ...] | None
    """What people call the classes; None: not known."""
    weights: Kind | None
    """Which weights of its checkpoint the network has, model or ema; None: there was no choice."""

    def __init__(self, network: nn.Module, recipe: Recipe, names: ClassNames, weights: Kind | None = None) -> None:
        """`names` are those of all outputs.

        Raises:
            InputError: eval.classes of the recipe cannot be used.
        """
        super().__init__()
        self.network = network
        self.recipe, self.classes, self.titles, self.weights = recipe, names.classes, names.titles, weights
        self._predicted = names.predicted(recipe.eval)
        self._inference: tuple[Any, nn.Module] | None = None  # in a tuple, so that it is no part of this module

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits (n, classes) of normalised images (n, 3, H, W), see `preprocess`."""
        logits: Tensor = self.network(images)
        return logits

    def views(self, image: GivenImage) -> list[Tensor]:
        """Return the views of an image that evaluation decodes, without their mirror images: uint8 (3, H, W) each.

        Raises:
            InputError: the image cannot be read.
        """
        batch = self._batch([image])
        of_image: list[Tensor] = [torch.empty(0)] * build_views(self.recipe.eval).loaded
        for group in batch.groups:
            for view, pixels in zip(group.views, batch.images(group), strict=True):
                of_image[view] = pixels
        return of_image

    def preprocess(self, image: GivenImage) -> Tensor:
        """Return what `forward` takes: all views of an image, normalised, fp32 (views, 3, H, W), on the same device.

        There is one with eval.protocol=center. Mirror images come behind the others.

        Raises:
            InputError: the image cannot be read, or its views have several sizes, as with eval.protocol=multi_scale.
        """
        views = self.views(image)
        if len({view.shape for view in views}) > 1:
            raise InputError(
                f"eval.protocol={self.recipe.eval.protocol} shows an image in several sizes; use predict, or views"
            )
        pixels = build_color_transform(self.recipe)(torch.stack(views).to(self._device), None)
        return torch.cat((pixels, pixels.flip(-1))) if build_views(self.recipe.eval).flip else pixels

    @overload
    def predict(  # type: ignore[overload-overlap]
        self, images: GivenImage, top: int = 5, batch_size: int | None = None
    ) -> Prediction: ...

    @overload
    def predict(
        self, images: Iterable[GivenImage], top: int = 5, batch_size: int | None = None
    ) -> list[Prediction]: ...

    def predict(
        self, images: GivenImage | Iterable[GivenImage], top: int = 5, batch_size: int | None = None
    ) -> Prediction | list[Prediction]:
        """Return the `top` best classes of one image, or of each of several, of which `batch_size` are held at once.

        An image is a path, an image of Pillow, or uint8 RGB as a tensor (3, H, W) or an array (H, W, 3). Pixels, views,
        averages and precision are those of `resnext eval`; EXIF orientation is ignored, as there. The modes and
        gradients of all modules stay as they are.

        Raises:
            InputError: an image cannot be read, or is none.
        """
        if is_given_image(images):
            return self.predict([cast(GivenImage, images)], top)[0]
        if top < 1 or (batch_size is not None and batch_size < 1):
            raise InputError("top and batch_size must be at least 1")
        size, rest = batch_size or images_per_batch(self.recipe.eval), iter(cast(Iterable[GivenImage], images))
        predictor = build_predictor(self._as_evaluated(), self.recipe, self._predicted, self._device)
        found: list[Prediction] = []
        with as_in_evaluation(self.recipe):
            while some := list(islice(rest, size)):
                found += predictor(self._batch(some, len(found)).to(self._device), top)
        return found

    def _as_evaluated(self) -> nn.Module:
        """Return the network in the form that evaluation gives it, made anew if its weights have changed since."""
        tensors = [*self.network.parameters(), *self.network.buffers()]
        state = [(id(t), t._version, t.data_ptr(), t.dtype) for t in tensors]
        if self._inference is None or self._inference[0] != state:
            self._inference = state, inference_network(self.network)
        return self._inference[1]

    def _batch(self, images: Sequence[GivenImage], first: int = 0) -> EvalBatch:
        batches = EvalBatches(GivenImages(images, first), build_views(self.recipe.eval), len(images))
        batch = batches[BatchIndices(0, np.arange(len(images)))]
        if isinstance(batch, UnreadableImage):
            raise InputError(batch.message)
        return batch

    @property
    def _device(self) -> torch.device:
        return next(self.network.parameters()).device


def load(
    path: str | os.PathLike[str],
    recipe: str | os.PathLike[str] | Recipe | None = None,
    classes: str | os.PathLike[str] | Sequence[str] | None = None,
    device: str | torch.device | None = None,
    overrides: Sequence[str] = (),
    weights: str = "auto",
) -> Classifier:
    """Return the network in a run folder, whose best checkpoint it is, a checkpoint, an export, or foreign weights.

    Foreign weights need the `recipe` of their network, by name, path, or itself. For a checkpoint it replaces all
    sections but the model. `classes` are the names of foreign weights, or a file or folder of them as for `resnext
    eval --classes`; without, they are numbers. `overrides` are written `section.key=value`. Without a `device` it is a
    GPU where there is one. `weights` is auto, model or ema, as `resnext eval --weights`.

    >>> load("runs/smoke", overrides=["eval.protocol=center_flip"]).classes[:2]
    ('class_0000', 'class_0001')

    Raises:
        InputError: a file, recipe or device cannot be used.
    """
    given = None
    if recipe is not None:
        loaded = loaded_recipe(recipe, overrides)
        check_network(loaded)
        given = loaded.recipe
    stored = read_network(checkpoint_path(os.fspath(path)), given, overrides, weights)
    stored.check_view_sizes()
    names = names_of(stored, os.fspath(classes) if isinstance(classes, os.PathLike) else classes, "classes")
    network, origin = built_network(stored, _device(device))
    if doubt := doubt_about(stored, origin):
        warnings.warn(doubt, stacklevel=2)
    return Classifier(network, stored.recipe, names, stored.kind).eval()


def _device(named: str | torch.device | None) -> torch.device:
    if named is None:
        return pick_device(this_rank().local_rank)
    try:
        device = torch.device(named)
    except RuntimeError as error:
        raise InputError(f"there is no device {named}; name cpu or cuda") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise InputError(f"device {named}: torch sees no GPU here; name cpu")
    return device
