"""Find the file of a network that a user names. Imports no torch."""

from __future__ import annotations

from pathlib import Path

from resnext_train.checkpoint.resume import run_folder
from resnext_train.errors import InputError
from resnext_train.regular_file import why_no_file


def checkpoint_path(path: str, option: str = "") -> Path:
    """Return the file that `path` is, or the best.pt of the run folder that it is.

    `option` is what gave the path, for messages.

    Raises:
        InputError: there is none.
    """
    place = f"{option}: " if option else ""
    if folder := run_folder(path):
        if not folder.best.is_file():
            last = f"; its last checkpoint is {folder.last}" if folder.last.is_file() else ""
            raise InputError(f"{place}run folder {path} holds no {folder.best.relative_to(folder.path)}{last}")
        return folder.best
    if why := why_no_file(path):
        raise InputError(f"{place}checkpoint {path} {why}")
    return Path(path)
