"""What the commands share: how errors are shown and which process speaks."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable


def run_command(name: str, command: Callable[[], None]) -> int:
    """Run `command`; the exit code is 0, or 2 after one sentence about bad input.

    Under torchrun each host's first process speaks for its others, but for what one of them met alone.
    """
    from resnext_train.errors import InputError, LocalInputError

    try:
        command()
    except InputError as error:
        if os.environ.get("LOCAL_RANK", "0") == "0" or isinstance(error, LocalInputError):
            print(f"{name}: error: {error}", file=sys.stderr)
        else:
            time.sleep(5)  # torchrun ends all processes as soon as one leaves: let the first one speak
        return 2
    except KeyboardInterrupt:
        if is_main():
            print(f"{name}: interrupted", file=sys.stderr)
        return 130
    return 0


def is_main() -> bool:
    """Whether this is the process that speaks: torchrun's rank 0."""
    return os.environ.get("RANK", "0") == "0"


def say(text: str = "") -> None:
    """Print a line from the first process only."""
    if is_main():
        print(text, flush=True)
