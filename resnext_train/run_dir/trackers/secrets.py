"""Keys and passwords, which libraries repeat in their messages, and which no log may hold."""

from __future__ import annotations

import os
import re

_IN_ADDRESS = re.compile(r"(?<=://)[^/\s]+@")
_NAMES = re.compile(r"KEY|TOKEN|PASSWORD|SECRET")
_SHORTEST = 6
"""Characters of a secret; shorter values are parts of other words."""


def without_secrets(text: str) -> str:
    """Return `text` with *** for users and passwords in addresses, and for values of variables that hold secrets."""
    text = _IN_ADDRESS.sub("***@", text)
    for name, value in os.environ.items():
        if len(value) >= _SHORTEST and _NAMES.search(name):
            text = text.replace(value, "***")
    return text
