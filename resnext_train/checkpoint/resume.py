"""Decide whether a run starts fresh or resumes, and from which checkpoint. No torch, so a refusal is immediate."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from resnext_train.atomic_file import free_name, link_atomically
from resnext_train.checkpoint.checkpoint_path import run_folder, weights_path
from resnext_train.config import Recipe, StepSchedule, as_continued, differences, load_stored_recipe, read_yaml
from resnext_train.errors import InputError
from resnext_train.regular_file import why_no_file
from resnext_train.run_dir.run_paths import RunDir, epoch_of

_MAY_CHANGE = (
    *("data.root", "data.workers", "data.on_bad_image", "data.titles", "eval.also", "log.", "checkpoint."),
    *("train.max_skipped", "train.patience", "train.reference"),
)
"""Keys, or beginnings of keys, that do not change what a resumed run computes from readable images."""


def check_resume(folder: RunDir, recipe: Recipe, resume: str) -> None:
    """Refuse what `--resume auto|never|PATH` must not do with a run folder.

    Refused are

    1. PATH: where it is no file, nor the folder of a run with checkpoints, or the folder holds another run than that of
       PATH. The recipe may have changed. Where the folder holds a run that began from PATH, this is as auto: the same
       command continues.
    2. never: where the folder already holds a run: nothing is overwritten.
    3. auto: where the folder holds a run of another recipe, except for what may change (data.root, data.workers,
       data.on_bad_image, data.titles, eval.also, log.*, checkpoint.*, train.max_skipped, train.patience,
       train.reference); or where a run has saved, but its recipe.yaml, or both last.pt and previous.pt, are gone.
    4. a new run from model.weights that are no file.

    Raises:
        InputError: refused.
    """
    holds_run = folder.recipe.is_file()
    if resume not in _WORDS and not _goes_on(folder, resume):
        path = named_checkpoints(resume)[0]
        begins = holds_run and _is_branch(folder, resume)  # and was killed before its first save
        if is_elsewhere(path, folder) and (folder.trace_of_saves() or (holds_run and not begins)):
            raise InputError(f"{folder.path} already holds another run than {path}; choose another --out")
        return
    trace = None if _held(folder) else folder.trace_of_saves()
    if resume == "never" and (holds_run or trace):
        raise InputError(f"{folder.path} already holds a run; choose another --out, or remove the folder")
    if holds_run:
        check_same_recipe(folder, recipe)
    if trace:
        lost = "last.pt and previous.pt are" if holds_run else "recipe.yaml is"
        left = next((path for path in folder.newest_first() if path.is_file()), None)
        choice = f"continue by --resume {left}" if left else "put them back"
        raise InputError(
            f"{folder.path} holds a run that has saved, as {trace} shows, but its {lost} gone; {choice}, choose "
            "another --out, or remove the folder"
        )
    if not _held(folder):
        weights_path(recipe)  # for its refusal


def check_same_recipe(folder: RunDir, recipe: Recipe) -> None:
    """Raise InputError if the run that the folder holds is of another recipe, except for what may change."""
    if changed := fixed_differences(load_stored_recipe(folder.recipe), recipe):
        raise InputError(
            f"{folder.path} already holds a run of another recipe ({describe(changed)}); choose another --out, or "
            f"continue it with these changes by resnext train --resume {folder.last}"
        )


def continued_recipe(folder: RunDir, recipe: Recipe, resume: str) -> Recipe:
    """Return `recipe` as the run that the folder holds goes on, see `as_continued` in config/."""
    if not folder.recipe.is_file() or not (resume == "auto" or _goes_on(folder, resume)):
        return recipe  # that of a PATH is in the checkpoint
    return as_continued(recipe, read_yaml(folder.recipe))


def _goes_on(folder: RunDir, resume: str) -> bool:
    """Return whether PATH is where the run in the folder began, and it has saved since: it continues from there."""
    return _is_branch(folder, resume) and bool(_held(folder))


def _is_branch(folder: RunDir, resume: str) -> bool:
    """Return whether the folder holds a run that began from PATH of another one, which may be gone by now."""
    if resume in _WORDS or not folder.recipe.is_file():
        return False
    named = Path(resume)
    parent = run_folder(resume) or RunDir(named)
    paths = (named, parent.last, parent.previous)
    elsewhere = all(is_elsewhere(path, folder) for path in paths)
    return elsewhere and folder.origin() in [str(path.resolve()) for path in paths]


def is_elsewhere(path: Path, folder: RunDir) -> bool:
    """Return whether a checkpoint is none of the run folder's own."""
    return path.resolve().parent != folder.checkpoints.resolve()


def named_checkpoints(resume: str) -> tuple[Path, ...]:
    """Return the checkpoints that `--resume PATH` means: the file, or last.pt and previous.pt of a run folder.

    Raises:
        InputError: there is none.
    """
    if folder := run_folder(resume):
        held = tuple(path for path in (folder.last, folder.previous) if path.is_file())
        if not held:
            raise InputError(f"--resume: {resume} is no run folder that can be continued: it holds no {folder.last}")
        return held
    if why := why_no_file(resume):
        raise InputError(f"--resume: checkpoint {resume} {why}")
    return (Path(resume),)


_WORDS = ("auto", "never")
"""Values of --resume that are no path."""


def choose_checkpoint(folder: RunDir, recipe: Recipe, resume: str) -> tuple[Path, ...]:
    """Return the checkpoints to resume from, of which the first that is not damaged is taken; none for a new run.

    Call it under the folder's lock, for another run may have written there since the last `check_resume`. PATH is
    taken as it is. A run that the folder holds continues from its last.pt, else from its previous.pt.

    Raises:
        InputError: refused, see `check_resume`.
    """
    check_resume(folder, recipe, resume)
    if resume not in _WORDS and not _goes_on(folder, resume):
        return named_checkpoints(resume)
    return _held(folder)


def _held(folder: RunDir) -> tuple[Path, ...]:
    """Return the checkpoints of the run that a folder holds, the newest first; they may be no files."""
    paths = (folder.last, folder.previous) if folder.recipe.is_file() else ()
    return tuple(path for path in paths if os.path.lexists(path))


def fixed_differences(old: Recipe, new: Recipe) -> dict[str, tuple[Any, Any]]:
    """Return the differences between two recipes that a resumed run does not accept silently."""
    changed = {k: v for k, v in differences(old, new).items() if not k.startswith(_MAY_CHANGE)}
    if _reached_milestones(old) == _reached_milestones(new):
        changed.pop("schedule.milestones", None)
    return changed


def _reached_milestones(recipe: Recipe) -> list[float | str]:
    """Return the milestones of a recipe without those, in epochs, that no run of it reaches."""
    if not isinstance(recipe.schedule, StepSchedule):
        return []
    epochs = recipe.train.epochs
    return [m for m in recipe.schedule.milestones if isinstance(m, str) or m < epochs]


def describe(changed: dict[str, tuple[Any, Any]]) -> str:
    """Describe the first five differences as `key: old -> new`."""
    shown = [f"{key}: {_shown(old)} -> {_shown(new)}" for key, (old, new) in list(changed.items())[:5]]
    return ", ".join(shown) + (f" and {len(changed) - 5} more" if len(changed) > 5 else "")


def _shown(value: object) -> object:
    return "null" if value is None else value


def branch_from(folder: RunDir, path: Path, epochs: int) -> None:
    """Make `path`, from which a run resumes after `epochs` whole epochs, last.pt, so that no other checkpoint wins.

    Another last.pt is damaged, or belongs to a branch that is given up: it becomes discarded.pt. previous.pt and later
    epochs become discarded_NAME. A `path` in another folder changes nothing.

    Raises:
        InputError: the disk cannot be written.
    """
    last = folder.last
    if path.parent.resolve() != folder.checkpoints.resolve() or (last.is_file() and path.samefile(last)):
        return
    given_up = [path for path in folder.epochs() if epoch_of(path) > epochs]
    if folder.previous.is_file() and not path.samefile(folder.previous):
        given_up.append(folder.previous)
    try:
        if last.is_file():
            discarded = last.with_name("discarded.pt")
            link_atomically(last, free_name(discarded) if discarded.is_dir() else discarded)
        elif os.path.lexists(last):  # a folder, or a link to itself
            last.rename(free_name(last.with_name("discarded.pt")))
        link_atomically(path, last)
        for other in given_up:
            other.replace(other.with_name(f"discarded_{other.name}"))
    except OSError as error:
        raise InputError(f"run folder {folder.path} cannot be written: {error.strerror}") from error
