"""From the recipe's augment, train and eval sections to transforms and loaders."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from resnext_train.config import EvalSection, FolderData, PadAugment, Recipe, ScaleAugment
from resnext_train.data.batch_datasets import EvalGroups, TrainGroups
from resnext_train.data.batch_loader import LoaderOptions, groups_from
from resnext_train.data.build_sources import first_few, missing_from
from resnext_train.data.image_batch import Group, Unreadable
from resnext_train.data.loader_workers import check_shared_memory, worker_count
from resnext_train.data.sampler import EvalSampler, StepPlan, TrainSampler, deal
from resnext_train.data.sources.class_subset import ClassImages, read_class_names
from resnext_train.data.sources.image_source import Source
from resnext_train.data.transforms.color_transform import Photometric
from resnext_train.data.transforms.crop_transforms import (
    AreaTransform,
    EvalTransform,
    PadTransform,
    ScaleTransform,
    Transform,
)
from resnext_train.distributed.dist_context import Process
from resnext_train.errors import InputError


def build_photometric(recipe: Recipe) -> Photometric:
    """The colour step and normalisation of a recipe."""
    augment, data = recipe.augment, recipe.data
    return Photometric(augment.brightness, augment.contrast, augment.saturation, augment.lighting, data.mean, data.std)


def build_augmentation(recipe: Recipe) -> Transform:
    """The crop and flip of a recipe."""
    a = recipe.augment
    if isinstance(a, PadAugment):
        r, g, b = (min(max(round(255 * mean), 0), 255) for mean in recipe.data.mean)
        return PadTransform(a.size, a.padding, (r, g, b), a.interpolation, a.flip)
    if isinstance(a, ScaleAugment):
        return ScaleTransform(a.size, a.interpolation, a.flip, a.short_side)
    return AreaTransform(a.size, a.interpolation, a.flip, a.area, a.aspect)


def build_train_loader(
    recipe: Recipe, source: Source, plan: StepPlan, process: Process, start: int, stop: int
) -> DataLoader[Group | Unreadable]:
    """This process's groups of steps `start` to `stop`."""
    transform, photometric = build_augmentation(recipe), build_photometric(recipe)
    largest = -(-plan.batch_size // plan.groups)
    dataset = TrainGroups(source, transform, photometric, recipe.train.seed, largest, _skips(recipe))
    share = deal(plan.groups, process.world, process.rank)
    sampler = TrainSampler(plan, recipe.train.seed, share, start, stop)
    return groups_from(dataset, sampler, _options(recipe, process))


@dataclass(frozen=True)
class Evaluation:
    """The images to count, labelled by position among the classes that predictions are made among."""

    images: Source
    outputs: Tensor | None
    """The network's outputs for those classes, int64, ascending; None: all outputs."""
    protocol: str
    """What is done, in one line."""


def build_evaluation(section: EvalSection, source: Source, classes: tuple[str, ...]) -> Evaluation:
    """What an eval section means for `source` and for a network whose outputs are `classes`.

    Raises:
        InputError: a class that counts is not among `classes`, no image counts, or eval.classes cannot be used.
    """
    if section.classes is not None:
        return _restricted(section, Path(section.classes).expanduser(), source, classes)
    if unknown := missing_from(source.classes, classes):
        raise InputError(f"the images have classes that the network does not know: {first_few(unknown)}")
    return Evaluation(ClassImages(source, classes), None, section.protocol)


def _restricted(section: EvalSection, path: Path, source: Source, classes: tuple[str, ...]) -> Evaluation:
    """Evaluation on the classes that the file or folder `path` names, and among these."""
    listed = read_class_names(path, "eval.classes")
    if unknown := missing_from(listed, classes):
        raise InputError(f"eval.classes: {path} names classes that the network does not know: {first_few(unknown)}")
    outputs = torch.tensor([classes.index(name) for name in listed]).sort().values
    images = ClassImages(source, tuple(classes[i] for i in outputs.tolist()))
    if not len(images):
        raise InputError(f"eval.classes: the data holds no image of a class that {path} names")
    return Evaluation(images, outputs, f"{section.protocol}, among {len(outputs)} of {len(classes)} classes")


def build_eval_loader(recipe: Recipe, images: Source, process: Process) -> DataLoader[Group | Unreadable]:
    """This process's blocks of `images`."""
    e = recipe.eval
    dataset = EvalGroups(images, EvalTransform(e.resize, e.crop, e.interpolation), e.batch_size, _skips(recipe))
    sampler = EvalSampler(len(images), e.batch_size, process.world, process.rank)
    return groups_from(dataset, sampler, _options(recipe, process))


def check_memory(recipe: Recipe, process: Process, train: bool) -> None:
    """See that the loader processes on this host can hand over their groups, of training too or of evaluation alone.

    Raises:
        InputError: /dev/shm is too small for them.
    """
    workers = worker_count(recipe.data.workers, process.local_world) * process.local_world
    groups = recipe.eval.batch_size * recipe.eval.crop**2
    if train:
        groups += recipe.train.micro_batch * recipe.augment.size**2
    check_shared_memory(3 * groups, workers)


def _skips(recipe: Recipe) -> bool:
    return isinstance(recipe.data, FolderData) and recipe.data.on_bad_image == "skip"


def _options(recipe: Recipe, process: Process) -> LoaderOptions:
    return LoaderOptions(worker_count(recipe.data.workers, process.local_world), process.device.type == "cuda")
