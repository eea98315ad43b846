"""A recipe on the data and the ranks it runs with."""

from __future__ import annotations

from dataclasses import dataclass

from resnext_train.compute.precision import Precision, resolve_precision
from resnext_train.config import Recipe
from resnext_train.data.build_loaders import Evaluation, build_evaluation, check_memory
from resnext_train.data.build_sources import Splits, build_splits
from resnext_train.data.sampler import StepPlan
from resnext_train.distributed.dist_context import DistContext
from resnext_train.errors import InputError
from resnext_train.training.lr_schedule import Schedule, build_schedule


@dataclass(frozen=True)
class Setup:
    """A recipe applied to its data and ranks; all durations are in steps from here on."""

    recipe: Recipe
    context: DistContext
    splits: Splits
    evaluation: Evaluation
    plan: StepPlan
    total_steps: int
    precision: Precision

    @property
    def num_classes(self) -> int:
        return len(self.splits.classes)

    def schedule(self) -> Schedule:
        r = self.recipe
        return build_schedule(r.schedule, r.optimizer, self.plan.steps_per_epoch, self.total_steps)

    def epoch_of(self, step: int) -> int:
        """Return the epoch, counted from 1, of step number `step`."""
        return step // self.plan.steps_per_epoch + 1


def set_up(recipe: Recipe, context: DistContext) -> Setup:
    """Find the data and apply the recipe to it.

    Raises:
        InputError: missing or unfit data, a class count that disagrees with it, or too little data for a step.
    """
    splits = context.local_rank0_first(lambda: build_splits(recipe.data))
    requested = recipe.model.num_classes
    if requested not in ("auto", len(splits.classes)):
        raise InputError(
            f"model.num_classes is {requested} but the data has {len(splits.classes)} classes; correct it or use auto"
        )
    evaluation = context.run_on_all_ranks(lambda: build_evaluation(recipe.eval, splits.val, splits.classes))
    context.run_on_all_ranks(lambda: check_memory(recipe, context, train=True))
    plan = StepPlan(len(splits.train), recipe.train.batch_size, recipe.train.micro_batches)
    total = recipe.train.epochs * plan.steps_per_epoch
    total = min(total, recipe.train.max_steps or total)
    precision = resolve_precision(recipe.train.precision, context.device)
    return Setup(recipe, context, splits, evaluation, plan, total, precision)
