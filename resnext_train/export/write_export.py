"""Write a network in a format: check what was written before it gets its name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from resnext_train.atomic_file import new_path, write_text_atomically
from resnext_train.errors import InputError
from resnext_train.export.exported_network import Agreement, ExportedNetwork
from resnext_train.export.hf_folder import write_hf
from resnext_train.export.onnx_file import write_onnx
from resnext_train.export.torch_export_file import write_torch_export
from resnext_train.export.weights_files import write_pth, write_safetensors
from resnext_train.inference.weights_metadata import to_json

WRITERS: dict[str, Callable[[ExportedNetwork, Path], Agreement]] = {
    "safetensors": write_safetensors,
    "pth": write_pth,
    "onnx": write_onnx,
    "torch_export": write_torch_export,
    "hf": write_hf,
}
"""By the names of FORMATS. Each fills a path that does not exist yet, reads it back, and compares the logits."""


def write_export(network: ExportedNetwork, path: Path, name: str, beside: Path | None = None) -> Agreement:
    """Write `network` to `path` in the format `name`, and its metadata to `beside`; neither exists yet.

    Raises:
        InputError: it cannot be written in this format, or not at all, or reads back with other logits; nothing is
            left of it.
    """
    try:
        with new_path(path) as temporary:
            agreement = WRITERS[name](network, temporary)
            if not agreement.holds:
                raise InputError(
                    f"{path}, read back into {agreement.reader}, gave other logits (they differ by "
                    f"{agreement.difference:.2g}, more than {agreement.tolerance:g}) and was removed"
                )
            if beside is not None:
                write_text_atomically(beside, to_json(network.metadata, indent=2) + "\n")
    except OSError as error:
        raise InputError(f"--out: {path} cannot be written: {error.strerror or error}") from error
    return agreement
