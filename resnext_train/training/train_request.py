"""A run to start or to continue, checked as far as that goes without torch, which is not imported here."""

from __future__ import annotations

from dataclasses import dataclass

from resnext_train.checkpoint.resume import check_resume, continued_recipe
from resnext_train.config import LoadedRecipe, Recipe, check_micro_batches
from resnext_train.distributed.rank import planned_processes, this_rank
from resnext_train.models.architecture import check_network
from resnext_train.run_dir.run_paths import RunDir
from resnext_train.run_dir.trackers.tracker_list import check_installed


@dataclass(frozen=True)
class TrainRequest:
    """A run to start or to continue."""

    recipe: Recipe
    folder: RunDir
    resume: str
    """auto, never, or the path of a checkpoint or of a run folder."""
    notes: tuple[str, ...]
    """What was decided for the recipe, to be said."""
    dry_run: bool = False
    profile: int = 0
    """Steps to profile."""

    @property
    def patience_seconds(self) -> float:
        """How long ranks wait for each other, in seconds."""
        return self.recipe.train.patience_seconds


def train_request(
    loaded: LoadedRecipe, folder: RunDir, resume: str, processes: int = 1, dry_run: bool = False
) -> TrainRequest:
    """Check a recipe's network, whether `processes` can train it, and what `resume` means for the run folder.

    Raises:
        InputError: one of them does not fit.
    """
    recipe = continued_recipe(folder, loaded.recipe, resume)
    check_network(loaded)
    check_installed(recipe.log.to)
    check_micro_batches(recipe, max(processes, this_rank().world_size, planned_processes()))
    if not dry_run:  # which checks it last, so that the rest is seen
        check_resume(folder, recipe, resume)
    return TrainRequest(recipe, folder, resume, loaded.notes, dry_run)
