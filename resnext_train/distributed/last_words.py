"""Print how a command ends, on stderr and to torchrun. Imports no torch."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from pathlib import Path

from resnext_train.distributed.rank import launcher_pid


def print_last_line(text: str) -> None:
    """Print to stderr why a command ends, and tell torchrun."""
    with contextlib.suppress(OSError):  # with stderr closed, the exit code remains
        print(text, file=sys.stderr, flush=True)
    tell_torchrun(text)


def tell_torchrun(text: str) -> None:
    """Write what torchrun shows as the cause in its table of failures, as torch's decorator `record` does.

    That one takes only exceptions, and would need torch before the arguments are checked.
    """
    path = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if path and launcher_pid() is None:
        cause = {"message": text, "extraInfo": {"py_callstack": text, "timestamp": str(int(time.time()))}}
        with contextlib.suppress(OSError):
            Path(path).write_text(json.dumps({"message": cause}))
