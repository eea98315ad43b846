"""Build transforms and loaders from the recipe's augment, train and eval sections."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import assert_never

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from resnext_train.config import (
    DataSection,
    EraseSection,
    EvalSection,
    FolderData,
    MixSection,
    NoAutoAugment,
    PadAugment,
    RandAugment,
    Recipe,
    ScaleAugment,
    TimmRandAugment,
    TrivialAugmentWide,
)
from resnext_train.data.batch_datasets import MAX_SKIPPED_IN_A_ROW, TrainBatches
from resnext_train.data.build_sources import build_val, first_few, missing_from
from resnext_train.data.device_loader import DeviceLoader, Loading
from resnext_train.data.eval_batches import EvalBatch, EvalBatches
from resnext_train.data.image_batch import ImageBatch
from resnext_train.data.loader_workers import check_shared_memory, start_method, worker_count
from resnext_train.data.multi_labels import read_multi_labels
from resnext_train.data.sampler import EvalSampler, StepPlan, TrainSampler, shard_for_rank
from resnext_train.data.sources.class_subset import ClassImages, ImageSubset, read_class_names
from resnext_train.data.sources.image_source import ImageSource
from resnext_train.data.transforms.augmentation import DeviceTransforms, LoaderTransforms
from resnext_train.data.transforms.auto_augment import (
    AugmentPolicy,
    RandAugmentPolicy,
    TimmRandAugmentPolicy,
    TrivialAugmentWidePolicy,
)
from resnext_train.data.transforms.color_transform import ColorTransform
from resnext_train.data.transforms.crop_transforms import (
    AreaTransform,
    CropTransform,
    PadTransform,
    ScaleTransform,
)
from resnext_train.data.transforms.erase import RandomErasing
from resnext_train.data.transforms.eval_views import EvalViews
from resnext_train.data.transforms.mix import Mixing
from resnext_train.distributed.dist_context import DistContext
from resnext_train.distributed.process_limits import check_socket_folder
from resnext_train.errors import InputError
from resnext_train.regular_file import user_path

Report = Callable[[str], None]
"""Takes one sentence about an image that cannot be read."""

_PART_OF_PATIENCE = 0.9
"""How long a rank waits for images, as a part of how long ranks wait for each other: the one that has none says so."""


def build_color_transform(recipe: Recipe) -> ColorTransform:
    """Return the colour augmentation and normalisation of a recipe."""
    augment, data = recipe.augment, recipe.data
    return ColorTransform(
        augment.brightness,
        augment.contrast,
        augment.saturation,
        augment.lighting,
        data.mean,
        data.std,
        memory_format(recipe),
    )


def build_mixing(section: MixSection, seed: int) -> Mixing | None:
    """Return mixup and CutMix of a recipe, or None where it uses neither."""
    return Mixing(section.mixup, section.cutmix, section.switch, seed) if section.mixup or section.cutmix else None


def memory_format(recipe: Recipe) -> torch.memory_format:
    """Return the memory layout of a recipe's images and network, see `train.layout`."""
    return torch.contiguous_format if recipe.train.layout == "contiguous" else torch.channels_last


def build_crop_transform(recipe: Recipe, epoch: int) -> CropTransform:
    """Return the crop and flip of an epoch of a recipe, counted from 0."""
    a = recipe.augment
    size = a.size_in(epoch)
    if isinstance(a, PadAugment):
        return PadTransform(size, a.padding, _mean_color(recipe), a.interpolation, a.flip)
    if isinstance(a, ScaleAugment):
        return ScaleTransform(size, a.interpolation, a.flip, a.short_side)
    return AreaTransform(size, a.interpolation, a.flip, a.area, a.aspect, a.aspect_law == "log")


def build_erasing(section: EraseSection) -> RandomErasing:
    """Return the random erasing of an erase section."""
    return RandomErasing(section.probability, section.value, section.count, section.area, section.aspect)


def build_loader_transforms(recipe: Recipe) -> LoaderTransforms:
    """Return what loader processes do to training images."""
    crop_in, largest = functools.partial(build_crop_transform, recipe), recipe.augment.size
    policy, color, erasing = build_augment_policy(recipe), build_color_transform(recipe), build_erasing(recipe.erase)
    return LoaderTransforms(crop_in, largest, policy, color, erasing)


def build_device_transforms(recipe: Recipe) -> DeviceTransforms:
    """Return what is done to training images on the device."""
    mixing = build_mixing(recipe.mix, recipe.train.seed)
    return DeviceTransforms(build_color_transform(recipe), build_erasing(recipe.erase), mixing)


def build_augment_policy(recipe: Recipe) -> AugmentPolicy | None:
    """Return the operations that a recipe does on crops, or None."""
    a = recipe.auto_augment
    if isinstance(a, NoAutoAugment):
        return None
    if isinstance(a, RandAugment):
        return RandAugmentPolicy(a.num_ops, a.magnitude, a.interpolation)
    if isinstance(a, TimmRandAugment):
        strength, fill = (a.magnitude, a.magnitude_std), _mean_color(recipe)
        return TimmRandAugmentPolicy(a.num_ops, *strength, a.increasing, a.probability, a.interpolation, fill)
    if isinstance(a, TrivialAugmentWide):
        return TrivialAugmentWidePolicy(1, a.interpolation)
    assert_never(a)


def _mean_color(recipe: Recipe) -> tuple[int, int, int]:
    """Return the mean colour of a recipe's data as whole levels."""
    r, g, b = (min(max(round(255 * mean), 0), 255) for mean in recipe.data.mean)
    return r, g, b


def normalisation_text(section: DataSection) -> str:
    """Return the mean and standard deviation with which images are normalised, for messages."""
    mean, std = (" ".join(f"{value:g}" for value in values) for values in (section.mean, section.std))
    return f"mean {mean}, std {std}"


def normalisation_warning(weights: Path, section: DataSection) -> str:
    """Return what to say of weights that are widespread with several normalisations."""
    return (
        f"{weights} does not say how its images were normalised, which differs between CIFAR ports; here it is by "
        f"{normalisation_text(section)}: if the accuracy is low, set data.mean and data.std as in its own code"
    )


def build_train_loader(
    recipe: Recipe, source: ImageSource, plan: StepPlan, context: DistContext, steps: range, report: Report
) -> DeviceLoader[ImageBatch]:
    """Return the loader of this rank's micro-batches of `steps`; `report` hears of images that cannot be read."""
    largest = -(-plan.batch_size // plan.micro_batches)
    dataset = TrainBatches(source, build_loader_transforms(recipe), recipe.train.seed, largest, _skips(recipe))
    shard = shard_for_rank(plan.micro_batches, context.world_size, context.rank)
    sampler = TrainSampler(plan, recipe.train.seed, shard, steps.start, steps.stop)
    return DeviceLoader(dataset, sampler, _loading(recipe, context), context.device, report)


@dataclass(frozen=True)
class Evaluation:
    """The images to evaluate, labelled by position among the classes that may be predicted."""

    images: ImageSource
    classes: tuple[str, ...]
    """The classes that may be predicted."""
    outputs: Tensor | None
    """The network's outputs for those classes, int64, ascending; None: all outputs."""
    description: str
    labels: NDArray[np.int64] | None = None
    """Several labels per image, (images, L), as positions among the classes; -1 fills up. None: those of `images`."""
    unlabelled: int = 0
    """Images that were left out because they have no label among several."""


def build_evaluation(section: EvalSection, source: ImageSource, classes: tuple[str, ...]) -> Evaluation:
    """Apply an eval section to `source`, for a network whose outputs are `classes`.

    Raises:
        InputError: a class to evaluate is not among `classes`, no image is left, or eval.classes or eval.labels cannot
            be used.
    """
    if section.classes is not None:
        found = _restricted(section, section.classes, source, classes)
    else:
        if unknown := missing_from(source.classes, classes):
            raise InputError(f"the images have classes that the network does not know: {first_few(unknown)}")
        found = Evaluation(ClassImages(source, classes), classes, None, section.description)
    return found if section.labels is None else _multi_labelled(section.labels, found, classes)


def build_also(recipe: Recipe, classes: tuple[str, ...]) -> dict[str, Evaluation]:
    """Return the further sets of eval.also for a network of `classes`: all their classes, and their own labels.

    Raises:
        InputError: the name of the set, and what is wrong with it.
    """
    section = recipe.eval.model_copy(update={"classes": None, "labels": None})
    found: dict[str, Evaluation] = {}
    for name, root in recipe.eval.also.items():
        data = FolderData(root=root)
        try:
            found[name] = build_evaluation(section, build_val(data), classes)
        except InputError as error:
            raise InputError(f"eval.also: {name}: {error}") from error
    return found


def predictable_classes(section: EvalSection, classes: tuple[str, ...]) -> tuple[tuple[str, ...], Tensor | None]:
    """Return those of a network's `classes` that eval.classes names, and the network's outputs for them, int64.

    Without eval.classes that is all of them, and None.

    Raises:
        InputError: the file or folder cannot be used, or names a class that the network does not know.
    """
    if section.classes is None:
        return classes, None
    path = user_path(section.classes)
    listed = read_class_names(path, "eval.classes")
    if unknown := missing_from(listed, classes):
        raise InputError(f"eval.classes: {path} names classes that the network does not know: {first_few(unknown)}")
    outputs = torch.tensor([classes.index(name) for name in listed]).sort().values
    return tuple(classes[i] for i in outputs.tolist()), outputs


def _restricted(section: EvalSection, path: str, source: ImageSource, classes: tuple[str, ...]) -> Evaluation:
    """Restrict both the images and the predictions to the classes that the file or folder `path` names."""
    among, outputs = predictable_classes(section, classes)
    images = ClassImages(source, among)
    if not len(images):
        raise InputError(f"eval.classes: the data holds no image of a class that {path} names")
    return Evaluation(images, among, outputs, f"{section.description}, among {len(among)} of {len(classes)} classes")


def _multi_labelled(file: str, evaluation: Evaluation, network_classes: tuple[str, ...]) -> Evaluation:
    """Take several labels per image from `file`; leave out images without any."""
    images = evaluation.images
    labels = read_multi_labels(file, images.name, len(images), evaluation.classes, network_classes)
    kept = np.flatnonzero((labels >= 0).any(1))
    return replace(
        evaluation,
        images=ImageSubset(images, kept),
        description=f"{evaluation.description}, several labels per image from {file}",
        labels=labels[kept],
        unlabelled=len(images) - len(kept),
    )


def build_views(section: EvalSection) -> EvalViews:
    """Return the views of an image that an eval section asks for."""
    whole = section.protocol in ("multi_scale", "full")
    return EvalViews(
        sides=section.scales if section.protocol == "multi_scale" else (section.short_side,),
        crop=None if whole else section.crop,
        ten=section.protocol == "ten_crop",
        flip=section.protocol in ("center_flip", "multi_scale"),
        interpolation=section.interpolation,
    )


def build_eval_loader(
    recipe: Recipe, images: ImageSource, context: DistContext, report: Report, skipped: float | None = None
) -> DeviceLoader[EvalBatch]:
    """Return the loader of this rank's batches of `images`; `report` hears of those that cannot be read.

    At most `skipped` in a row are left out; None: as data.on_bad_image says.
    """
    if skipped is None:
        skipped = MAX_SKIPPED_IN_A_ROW if _skips(recipe) else 0
    views, size = build_views(recipe.eval), images_per_batch(recipe.eval)
    dataset = EvalBatches(images, views, size, skipped)
    sampler = EvalSampler(len(images), size, context.world_size, context.rank)
    return DeviceLoader(dataset, sampler, _loading(recipe, context), context.device, report)


def images_per_batch(section: EvalSection) -> int:
    """Return how many images are loaded at once: fewer where each has several views."""
    return max(1, section.batch_size // build_views(section).loaded)


def check_memory(recipe: Recipe, context: DistContext, train: bool) -> None:
    """Check that this host's loader processes can pass on their batches, with `train` those of training, too.

    Raises:
        InputError: /dev/shm is too small for them, the path of the temporary files is too long, or they cannot be
            started as the environment asks.
    """
    workers = _workers(recipe, context) * context.local_world_size
    if workers:
        start_method()
        check_socket_folder()
    pixels = images_per_batch(recipe.eval) * build_views(recipe.eval).usual_pixels
    if train and recipe.eval.also:
        pixels *= 2  # while a further set is evaluated, the loader of the validation images keeps its memory
    if train:
        pixels += recipe.train.micro_batch * recipe.augment.size**2
    check_shared_memory(3 * pixels, workers)


def _skips(recipe: Recipe) -> bool:
    return isinstance(recipe.data, FolderData) and recipe.data.on_bad_image == "skip"


def _loading(recipe: Recipe, context: DistContext) -> Loading:
    return Loading(_workers(recipe, context), _PART_OF_PATIENCE * recipe.train.patience_seconds)


def _workers(recipe: Recipe, context: DistContext) -> int:
    return worker_count(recipe.data.workers, context.cores)
