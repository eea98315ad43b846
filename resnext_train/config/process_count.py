"""How many processes a recipe can have."""

from __future__ import annotations

from resnext_train.config.recipe import Recipe
from resnext_train.errors import InputError


def check_micro_batches(recipe: Recipe, world_size: int) -> None:
    """Check that each of so many processes has a micro-batch in a step.

    Raises:
        InputError: some have none; with the overrides that scale the recipe to them.
    """
    train, micro_batches = recipe.train, recipe.train.micro_batches
    if world_size > micro_batches:
        raise InputError(
            f"{world_size} processes but only {micro_batches} micro-batches in a step (train.batch_size "
            f"{train.batch_size} / train.micro_batch {train.micro_batch}); start at most {micro_batches}; or train by "
            f"another recipe than this, and so not the paper's, scaled to {world_size} processes: "
            f"{' '.join(_scaled(recipe, world_size))}"
        )


def _scaled(recipe: Recipe, world_size: int) -> list[str]:
    """Return overrides for a batch of one micro-batch per process, by the linear scaling rule (arXiv 1706.02677).

    The learning rate grows with the batch, and is reached by a warm-up of five epochs where there are more than twice
    as many.
    """
    train = recipe.train
    lr = recipe.optimizer.lr and recipe.optimizer.lr * world_size / train.micro_batches
    rate = [f"optimizer.lr={lr:.4g}"] if lr else []  # else it is scaled as it is
    warmup = ["schedule.warmup=5"] if train.epochs > 10 and recipe.schedule.warmup in (0, "0") else []
    return [f"train.batch_size={world_size * train.micro_batch}", *rate, *warmup]
