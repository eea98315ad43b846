"""A recipe on the data and the ranks it runs with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from resnext_train import __version__
from resnext_train.compute.backend import choices
from resnext_train.compute.precision import Precision, resolve_precision
from resnext_train.config import Deviation, Recipe, RunFacts, as_continued, deviations
from resnext_train.data.build_loaders import Evaluation, build_also, build_evaluation, check_memory, memory_format
from resnext_train.data.build_sources import Splits, build_splits
from resnext_train.data.decode.jpeg_decoder import describe_decoders
from resnext_train.data.loader_workers import worker_count, worker_text
from resnext_train.data.sampler import StepPlan
from resnext_train.data.slow_loader import Workers
from resnext_train.distributed.dist_context import DistContext
from resnext_train.distributed.same_recipe import check_same_recipe
from resnext_train.errors import InputError
from resnext_train.training.lr_schedule import Schedule, build_schedule
from resnext_train.training.recipe_warnings import recipe_warnings
from resnext_train.training.schedule_warnings import schedule_warnings


@dataclass(frozen=True)
class Setup:
    """A recipe applied to its data and ranks; all durations are in steps from here on."""

    recipe: Recipe
    context: DistContext
    splits: Splits
    evaluation: Evaluation
    also: Mapping[str, Evaluation]
    """The sets that eval.also names."""
    plan: StepPlan
    precision: Precision

    @property
    def num_classes(self) -> int:
        return len(self.splits.classes)

    @property
    def steps_per_epoch(self) -> int:
        return self.plan.steps_per_epoch

    @property
    def total_steps(self) -> int:
        train = self.recipe.train
        total = train.epochs * self.steps_per_epoch
        return min(total, train.max_steps or total)

    def schedule(self) -> Schedule:
        r = self.recipe
        peak = r.optimizer.peak_lr(r.train.batch_size)
        return build_schedule(r.schedule, peak, self.steps_per_epoch, self.total_steps)

    def warnings(self) -> list[str]:
        """Return what in the recipe has no effect in this run, a sentence each."""
        of_schedules = schedule_warnings(self.recipe, self.steps_per_epoch, self.total_steps)
        return of_schedules + recipe_warnings(self.recipe, self.plan)

    @property
    def crop_sizes(self) -> dict[int, int]:
        """The sizes of training crops in pixels, ascending, each with its first epoch, counted from 1."""
        sizes = self.recipe.augment.sizes(self.epoch_of(self.total_steps - 1))
        return {size: epoch + 1 for size, epoch in sizes.items()}

    @property
    def layout(self) -> str:
        """The memory layout of images and network."""
        return str(memory_format(self.recipe)).removeprefix("torch.").removesuffix("_format")

    def workers(self) -> Workers:
        """Return how many loader processes this rank has, and could have."""
        requested, cores = self.recipe.data.workers, self.context.cores
        return Workers(worker_count(requested, cores), worker_count("auto", cores))

    def epoch_of(self, step: int) -> int:
        """Return the epoch, counted from 1, of step number `step`."""
        return step // self.steps_per_epoch + 1

    def deviations(self) -> list[Deviation]:
        """Return the points in which this run departs from the paper or code that its recipe names."""
        kind, text = self.splits.train.storage
        return deviations(self.recipe, RunFacts(self.precision.name, kind, text, len(self.splits.train)))

    def effective(self) -> dict[str, Any]:
        """Return the recipe's effective values on this machine, for the start event."""
        train = self.recipe.train
        return {
            "world_size": self.context.world_size,
            "device": str(self.context.device),
            "precision": self.precision.name,
            "threads": torch.get_num_threads(),
            "layout": self.layout,
            "compile": train.compile,
            "checkpoint_activations": train.checkpoint_activations,
            **choices(self.context.device),
            **({"bucket_mb": train.bucket_mb, "comm": train.comm} if self.context.world_size > 1 else {}),
            "images": self.splits.storage,
            "jpeg": describe_decoders(),
            "loader_processes": worker_text(self.recipe.data.workers, self.context.cores),
            "batch_size": self.plan.batch_size,
            "groups": self.plan.micro_batches,
            "steps_per_epoch": self.steps_per_epoch,
            "total_steps": self.total_steps,
            **({"crops": self.crop_sizes} if len(self.crop_sizes) > 1 else {}),
            "warnings": self.warnings(),
            "deviations": [deviation.to_dict() for deviation in self.deviations()],
            "last_batch": {"images": self.plan.partial, "dropped": self.plan.dropped},
        }

    def as_continued(self, stored: Mapping[str, Any]) -> Setup:
        """Return this setup for a run that goes on from one with the recipe `stored`, see `as_continued` in config/."""
        recipe = as_continued(self.recipe, stored)
        return replace(self, recipe=recipe, plan=build_plan(recipe, self.splits))

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint holds of its run's recipe and data."""
        return {
            "plan": {"images": self.plan.images, "steps_per_epoch": self.steps_per_epoch},
            "recipe": self.recipe.to_dict(),
            "classes": list(self.splits.classes),
            "images": self.splits.storage,
            "version": __version__,
        }


def set_up(recipe: Recipe, context: DistContext) -> Setup:
    """Find the data and apply the recipe to it.

    Raises:
        InputError: missing or unfit data, a class count that disagrees with it, too little data for a step, a
            schedule in the wrong order, or ranks with different recipes or precisions.
    """
    check_same_recipe(recipe.to_dict(), context)
    splits = context.local_rank0_first(lambda: build_splits(recipe.data))
    requested = recipe.model.num_classes
    if requested not in ("auto", len(splits.classes)):
        raise InputError(
            f"model.num_classes is {requested} but the data has {len(splits.classes)} classes; correct it or use auto"
        )
    evaluation = context.run_on_all_ranks(lambda: build_evaluation(recipe.eval, splits.val, splits.classes))
    also = context.local_rank0_first(lambda: build_also(recipe, splits.classes))
    context.run_on_all_ranks(lambda: check_memory(recipe, context, train=True))
    plan = build_plan(recipe, splits)
    precision = context.run_on_all_ranks(lambda: resolve_precision(recipe.train.precision, context.device))
    context.check_agreement("would compute", f"in {precision.name}", "set train.precision to one that all have")
    setup = Setup(recipe, context, splits, evaluation, also, plan, precision)
    setup.schedule()  # refuses points in the wrong order
    return setup


def build_plan(recipe: Recipe, splits: Splits) -> StepPlan:
    """Return how the recipe cuts the training images into steps.

    Raises:
        InputError: too few images for a step.
    """
    train = recipe.train
    images, repeats = len(splits.train), recipe.augment.repeats
    return StepPlan(images, train.batch_size, train.micro_batches, train.last_batch, repeats)
