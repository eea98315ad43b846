"""A file that a full disk cannot stop."""

from __future__ import annotations

import contextlib
from pathlib import Path

from resnext_train.run_dir.print_line import print_line


class AppendFile:
    """A file to append to that never fails: what a full disk refuses is kept, and written when there is room again."""

    def __init__(self, path: Path) -> None:
        self._path, self._file = path, path.open("ab", buffering=0)
        self._pending = b""
        self._failing = False

    def write(self, data: bytes) -> int:
        """Append `data` at once, or later."""
        self._pending += data
        try:
            while self._pending:
                self._pending = self._pending[self._file.write(self._pending) or 0 :]
            self._failing = False
        except OSError as error:
            if not self._failing:
                print_line(f"{self._path} cannot be written: {error.strerror}; what is missing is kept")
            self._failing = True
        return len(data)

    def flush(self) -> None:
        """Nothing: there is no buffer but for what the disk refuses."""

    def close(self) -> None:
        """Close the file, after a last attempt."""
        self.write(b"")
        with contextlib.suppress(OSError):  # what a network's disk says now was said before
            self._file.close()
