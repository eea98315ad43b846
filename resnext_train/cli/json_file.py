"""The file of `--json`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from resnext_train.atomic_file import write_text_atomically
from resnext_train.errors import InputError
from resnext_train.run_dir.jsonl_sink import to_json


def write_json(file: str, value: Any, indent: int) -> None:
    """Write `value` as JSON to `file`: atomically, unless it is a pipe or a device such as /dev/stdout.

    Raises:
        InputError: it cannot be written.
    """
    path, text = Path(file), to_json(value, indent=indent) + "\n"
    try:
        if path.exists() and not path.is_file():
            path.write_text(text, encoding="utf-8")
        else:
            write_text_atomically(path.resolve(), text)  # a link stays one
    except OSError as error:
        raise InputError(f"--json: {file} cannot be written: {error.strerror}") from error
