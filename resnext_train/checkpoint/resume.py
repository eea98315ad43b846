"""Decide whether a run starts fresh or resumes, and from which checkpoint. No torch, so a refusal is immediate."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from resnext_train.atomic_file import link_atomically
from resnext_train.config import Recipe, differences, load_recipe
from resnext_train.errors import InputError
from resnext_train.run_dir.run_paths import RunDir

_MAY_CHANGE = (
    *("data.root", "data.workers", "data.on_bad_image", "log.", "checkpoint."),
    *("train.max_skipped", "train.patience"),
)
"""Keys, or beginnings of keys, that do not change what a resumed run computes from readable images."""


def check_resume(folder: RunDir, recipe: Recipe, resume: str) -> None:
    """Refuse what `--resume auto|never|PATH` must not do with a run folder.

    Refused are

    1. PATH: where it is no file, or the folder holds another run than that of PATH. The recipe may have changed.
    2. never: where the folder already holds a run: nothing is overwritten.
    3. auto: where the folder holds a run of another recipe, except for what may change (data.root, data.workers,
       data.on_bad_image, log.*, checkpoint.*, train.max_skipped, train.patience).
    4. a new run from model.weights that are no file.

    Raises:
        InputError: refused.
    """
    holds_run = folder.recipe.is_file()
    if resume not in _WORDS:
        path = Path(resume)
        if not path.is_file():
            raise InputError(f"--resume: checkpoint {path} not found")
        if holds_run and path.resolve().parent != folder.checkpoints.resolve():
            raise InputError(f"{folder.path} already holds another run than {path}; choose another --out")
    elif holds_run and resume == "never":
        raise InputError(f"{folder.path} already holds a run; choose another --out, or remove the folder")
    elif holds_run and (changed := fixed_differences(load_recipe(str(folder.recipe)), recipe)):
        raise InputError(
            f"{folder.path} already holds a run of another recipe ({describe(changed)}); choose another --out, or "
            f"continue it with these changes by --resume {folder.last}"
        )
    elif not _held(folder):
        check_weights(recipe)


_WORDS = ("auto", "never")
"""Values of --resume that are no path."""


def check_weights(recipe: Recipe) -> None:
    """Refuse a recipe whose model.weights are no file.

    Raises:
        InputError: they are none.
    """
    if recipe.model.weights and not Path(recipe.model.weights).expanduser().is_file():
        raise InputError(f"model.weights: {recipe.model.weights} not found")


def choose_checkpoint(folder: RunDir, recipe: Recipe, resume: str) -> tuple[Path, ...]:
    """Return the checkpoints to resume from, of which the first that is not damaged is taken; none for a new run.

    Call it under the folder's lock, for another run may have written there since the last `check_resume`. PATH is
    taken as it is. A run that the folder holds continues from its last.pt, else from its previous.pt.

    Raises:
        InputError: refused, see `check_resume`.
    """
    check_resume(folder, recipe, resume)
    if resume not in _WORDS:
        return (Path(resume),)
    return _held(folder)


def _held(folder: RunDir) -> tuple[Path, ...]:
    """Return the checkpoints of the run that a folder holds, the newest first."""
    paths = (folder.last, folder.previous) if folder.recipe.is_file() else ()
    return tuple(path for path in paths if path.is_file())


def fixed_differences(old: Recipe, new: Recipe) -> dict[str, tuple[Any, Any]]:
    """Return the differences between two recipes that a resumed run does not accept silently."""
    return {k: v for k, v in differences(old, new).items() if not k.startswith(_MAY_CHANGE)}


def describe(changed: dict[str, tuple[Any, Any]]) -> str:
    """Describe the first five differences as `key: old -> new`."""
    shown = [f"{key}: {old} -> {new}" for key, (old, new) in list(changed.items())[:5]]
    return ", ".join(shown) + (f" and {len(changed) - 5} more" if len(changed) > 5 else "")


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
    given_up = [e for e in folder.checkpoints.glob("epoch_*.pt") if int(e.stem.removeprefix("epoch_")) > epochs]
    if folder.previous.is_file() and not path.samefile(folder.previous):
        given_up.append(folder.previous)
    try:
        if last.is_file():
            link_atomically(last, last.with_name("discarded.pt"))
        link_atomically(path, last)
        for other in given_up:
            other.replace(other.with_name(f"discarded_{other.name}"))
    except OSError as error:
        raise InputError(f"run folder {folder.path} cannot be written: {error.strerror}") from error
