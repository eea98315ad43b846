"""Checkpoints: one file of CPU tensors and plain types that `torch.load(weights_only=True)` opens.

The file is what torch.save writes, followed by a line with the SHA-256 of all before it, so that any damage is
noticed: torch.load itself misses most flipped bits. One rename commits both. A checkpoint holds

    format      FORMAT, which distinguishes our files from foreign ones
    model       state dict of the bare network: names equal torchvision's
    ema         average of these weights, and the updates that it had; only of runs that keep one
    optimizer   state dict of the optimizer
    scaler      state dict of the loss scaler (empty unless fp16)
    schedule    state of the schedule (plateau's memory; the others need only the step)
    plan        images and steps of an epoch
    meter       sums of the current epoch, the log window and the run
    rng         state of torch's CPU generator. What a step draws does not depend on it: augmentation follows from
                (seed, epoch, image), and the forward pass of a micro-batch is seeded by (seed, step, micro-batch)
    skipped     steps that were not finite: all, and those in a row up to now
    progress    finished steps, whether the evaluation of that step is still due, seconds, last evaluation
    checkpointer  the best evaluation, and of which weights it is where there is an average
    recipe      the recipe, as plain types
    classes     class names by output
    images      how the images of each split are stored, for people
    version     version of this tool
"""

from __future__ import annotations

import argparse
import errno
import hashlib
import os
import pickle
import re
import warnings
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy
import torch
from safetensors import safe_open
from safetensors.torch import load_file as load_safetensors
from safetensors.torch import save as to_safetensors

from resnext_train.atomic_file import link_atomically, removed_on_error, sync_folder, write_atomically, write_temporary
from resnext_train.checkpoint.checkpoint_content import problem_in
from resnext_train.errors import InputError
from resnext_train.regular_file import IrregularFileError, open_regular

FORMAT = "resnext-train checkpoint 3"
_FORMATS = (FORMAT, "resnext-train checkpoint 2")
"""Those that this version reads. Format 2 has the best evaluation in `progress`."""

_SEAL = b"\nresnext-train sha256 "
_SEAL_SIZE = len(_SEAL) + hashlib.sha256().digest_size * 2 + 1


class DamagedError(InputError):
    """A file whose content is not what was written."""


def save(state: dict[str, Any], path: Path, names: Sequence[str] = (), previous: str | None = None) -> None:
    """Write `state`, whose tensors share no memory, to `path`, and under further `names` beside it.

    The old content of `path` is kept under the name `previous`. At any moment each file holds either its old or its
    new checkpoint. `path` is replaced last: when it is new, so are the others.

    Raises:
        OSError: the disk is full, or fails; `path` is as it was.
    """
    temporary = write_temporary(path, lambda file: _save_sealed({"format": FORMAT, **state}, file))
    with removed_on_error(temporary):
        for name in names:
            link_atomically(temporary, path.with_name(name))
        if previous is not None and path.is_file():
            link_atomically(path, path.with_name(previous))
        temporary.replace(path)
    sync_folder(path.parent)


def _save_sealed(state: dict[str, Any], file: IO[bytes]) -> None:
    hashed = _Hashed(file)
    torch.save(state, hashed)  # type: ignore[arg-type]
    file.write(_SEAL + hashed.digest.hexdigest().encode() + b"\n")


class _Hashed:
    """Writes to a file and hashes what is written."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self.digest = file, hashlib.sha256()

    def write(self, data: bytes) -> int:
        self.digest.update(data)
        return self._file.write(data)

    def flush(self) -> None:
        self._file.flush()


def _seal(path: Path) -> bool:
    """Return whether a file ends in a checksum.

    Raises:
        DamagedError: it does, but its content has another one.
        OSError: it cannot be read, or is no regular file.
    """
    with os.fdopen(open_regular(path), "rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - _SEAL_SIZE))
        seal = file.read()
        if not seal.startswith(_SEAL):
            return False
        file.seek(0)
        digest, left = hashlib.sha256(), size - _SEAL_SIZE
        while left and (chunk := file.read(min(left, 1 << 20))):
            digest.update(chunk)
            left -= len(chunk)
    if seal != _SEAL + digest.hexdigest().encode() + b"\n":
        raise DamagedError(f"{path} is damaged: its content does not match its checksum")
    return True


def save_weights(weights: dict[str, torch.Tensor], path: Path, metadata: dict[str, str] | None = None) -> None:
    """Write a bare state dict atomically: as safetensors with `metadata`, or by torch.save without."""
    if metadata is not None:
        write_atomically(path, lambda file: file.write(to_safetensors(weights, {"format": "pt", **metadata})))
    else:
        write_atomically(path, lambda file: torch.save(weights, file))


def snapshot(value: Any) -> Any:
    """Return `value` with copies of its tensors on the CPU: they load without a GPU and share no memory."""
    if isinstance(value, torch.Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        return {k: snapshot(v) for k, v in value.items()}
    return [snapshot(v) for v in value] if isinstance(value, list) else value


def approximate_bytes(value: Any) -> int:
    """Return about how large the file of a state is."""
    if isinstance(value, torch.Tensor):
        return int(value.numel()) * int(value.element_size()) + 300
    if isinstance(value, dict):
        return sum(approximate_bytes(v) for v in value.values()) + 100
    return sum(approximate_bytes(v) for v in value) if isinstance(value, list) else 100


def load_file(path: Path) -> Any:
    """Read the tensors and plain types of a file to the CPU; nothing in it is ever executed.

    The file is safetensors, or of torch.save, legacy files included. Besides tensors and plain types only what other
    trainers store beside their weights is allowed: parsed arguments and NumPy's numbers.

    Raises:
        InputError: the file is missing, damaged, or could only be read by running its code.
    """
    if path.is_dir():
        raise DamagedError(f"{path} is a folder; name a checkpoint in it, such as checkpoints/best.pt of a run folder")
    try:
        sealed = _seal(path)
    except FileNotFoundError as error:
        if path.is_symlink():
            raise DamagedError(f"{path} is a link to {path.readlink()}, which is not there") from error
        raise InputError(f"checkpoint {path} not found") from error
    except OSError as error:
        if isinstance(error, IrregularFileError) or error.errno == errno.ELOOP:
            raise DamagedError(f"{path} is no checkpoint: {error.strerror}") from error
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error
    try:
        if _is_safetensors(path):
            return load_safetensors(path)
        _check_archive(path)
        with torch.serialization.safe_globals(_HARMLESS), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the age or kind of the file; what matters is raised
            content = torch.load(path, map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except Exception as error:  # on arbitrary bytes the readers raise anything: IndexError, KeyError, ...
        raise DamagedError(f"{path} is not a checkpoint: {_reason(error)}") from error
    if is_ours(content):
        if not sealed:
            raise DamagedError(f"{path} is damaged: the checksum at its end is missing")
        _check_content(content, path)
    return content


def weights_metadata(path: Path) -> dict[str, str] | None:
    """Return the metadata of a safetensors file that `load_file` has read; None: it is another kind of file."""
    if not _is_safetensors(path):
        return None
    with safe_open(path, "pt") as file:
        return file.metadata() or {}


def _check_archive(path: Path) -> None:
    """Raise ValueError where a zip archive's records take more bytes than the file: torch.save compresses none."""
    if not zipfile.is_zipfile(path):
        return  # a file of an early torch.save, or none
    with zipfile.ZipFile(path) as archive:
        total = sum(record.file_size for record in archive.infolist())
    if total > path.stat().st_size:
        raise ValueError(f"its records of {total:,} bytes are compressed")


def _check_content(content: dict[str, Any], path: Path) -> None:
    """Raise DamagedError unless `content` is that of a checkpoint; bring format 2 to the present one."""
    progress = content.get("progress")
    if content["format"] != FORMAT and isinstance(progress, dict):  # what early ones of format 2 lack starts afresh
        content.setdefault("checkpointer", {"best": progress.pop("best", None)})
        content.setdefault("skipped", {"total": 0, "in_a_row": 0})
        content["progress"] = {"epoch_is_open": False, "epoch_began": 0.0, **progress}
    if problem := problem_in(content):
        raise DamagedError(f"{path} was not written by this tool, or is of another version: {problem}")


def _is_safetensors(path: Path) -> bool:
    """Recognise safetensors by the suffix, or by the first bytes: the length of a header, and its first brace."""
    with path.open("rb") as file:
        start = file.read(9)
    return path.suffix.lower() == ".safetensors" or (start[8:] == b"{" and int.from_bytes(start[:8], "little") < 2**27)


_NUMPY_SCALAR = numpy.float64(0).__reduce__()[0]
_HARMLESS: list[Any] = [
    argparse.Namespace,
    numpy.dtype,
    *{type(numpy.dtype(kind)) for kind in "?bhilqBHILQefd"},
    (_NUMPY_SCALAR, "numpy._core.multiarray.scalar"),
    (_NUMPY_SCALAR, "numpy.core.multiarray.scalar"),  # as NumPy 1 wrote it
]


def _reason(error: Exception) -> str:
    code = re.search(r"GLOBAL (\S+)", str(error))
    if code:
        return f"it holds {code[1]}, which only running code could restore; save its state dict alone and use that"
    if isinstance(error, pickle.UnpicklingError) or "weights_only" in str(error):
        return "it is damaged, no checkpoint, or holds objects that only running code could restore"
    if isinstance(error, EOFError):
        return "it is empty, or cut off"
    return str(error).partition("\n")[0].partition(". ")[0] or type(error).__name__


def is_ours(content: Any) -> bool:
    """Return whether a loaded file is a checkpoint of this tool, in a format that it reads."""
    return isinstance(content, dict) and content.get("format") in _FORMATS


def load(path: Path) -> dict[str, Any]:
    """Read a checkpoint of this tool.

    Raises:
        InputError: the file is something else, or damaged (DamagedError).
    """
    content = load_file(path)
    if not is_ours(content):
        raise InputError(
            f"{path} is not a checkpoint of this tool; foreign weights are for resnext eval --config RECIPE"
        )
    return content  # type: ignore[no-any-return]


def load_first(paths: Sequence[Path]) -> tuple[dict[str, Any], Path, list[str]]:
    """Read the first undamaged one of `paths`: its content, its path, and what is wrong with those before it.

    Raises:
        DamagedError: all are damaged.
        InputError: one cannot be read, or is not of this tool.
    """
    problems: list[str] = []
    for path in paths:
        try:
            return load(path), path, problems
        except DamagedError as error:  # one that cannot be read just now, or is foreign, is not passed over
            problems.append(str(error))
    raise DamagedError("; ".join(problems))
