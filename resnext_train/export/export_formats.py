"""The formats of exported networks: their names, suffixes and libraries. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from resnext_train.errors import InputError, MissingLibraryError


@dataclass(frozen=True)
class Format:
    """What a format needs and how its files are named."""

    suffixes: tuple[str, ...]
    """Those that mean it; none: it is a folder."""
    extra: str = ""
    """The extra of this package that installs its libraries."""
    libraries: tuple[str, ...] = ()


FORMATS = {
    "safetensors": Format((".safetensors",)),
    "pth": Format((".pth", ".pt")),
    "onnx": Format((".onnx",), "onnx", ("onnx", "onnxscript", "onnxruntime")),
    "torch_export": Format((".pt2",)),
    "hf": Format((), "timm", ("timm",)),
}
"""By the names of `--format`. A new one also has a writer in write_export.py."""


def format_of(target: Path, stated: str | None) -> str:
    """Return the format of a file or folder to write: that of its suffix, or the `stated` one where that says none.

    Raises:
        InputError: both contradict each other, neither says it, or there is no format of that name.
    """
    if stated is not None and stated not in FORMATS:
        raise InputError(f"--format {stated}: must be one of {', '.join(FORMATS)}")
    meant = next((name for name, known in FORMATS.items() if target.suffix.lower() in known.suffixes), None)
    if meant is not None and stated not in (None, meant):
        raise InputError(
            f"--out: {target} ends in {target.suffix}, which means {meant}, but --format says {stated}; leave out one"
        )
    if meant is None and stated is None and target.suffix:
        suffixes = ", ".join(suffix for known in FORMATS.values() for suffix in known.suffixes)
        raise InputError(f"--out: {target} should end in one of {suffixes}, or in none for a folder; or give --format")
    return meant or stated or "hf"


def check_libraries(name: str) -> None:
    """Raise MissingLibraryError unless all libraries of a format are installed."""
    missing = [library for library in FORMATS[name].libraries if find_spec(library) is None]
    if missing:
        raise MissingLibraryError(
            f"{name} needs {' and '.join(missing)}, not installed here; "
            f"pip install 'resnext-train[{FORMATS[name].extra}]'"
        )
