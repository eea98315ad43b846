"""A file that a full disk cannot stop."""

from __future__ import annotations

import contextlib
from pathlib import Path

from resnext_train.run_dir.console import print_warning


class AppendFile:
    """A file to append to that never fails: what a full disk refuses is kept in memory and written later."""

    def __init__(self, path: Path) -> None:
        self._path, self._file = path, path.open("ab", buffering=0)
        self._pending = b""
        self._failing = False

    def write(self, data: bytes) -> int:
        self._pending += data
        try:
            while self._pending:
                self._pending = self._pending[self._file.write(self._pending) or 0 :]
            self._failing = False
        except OSError as error:
            if not self._failing:
                print_warning(
                    f"{self._path} cannot be written: {error.strerror}; it will be written when there is room"
                )
            self._failing = True
        return len(data)

    def flush(self) -> None:
        """Do nothing: TensorBoard's record writer calls this, but there is no buffer to flush."""

    def close(self) -> None:
        """Try a last time to write what is missing, then close."""
        self.write(b"")
        if self._pending:
            print_warning(f"{self._path} lacks its last {len(self._pending):,} bytes, for which there was no room")
        with contextlib.suppress(OSError):  # a network disk reports again what was reported before
            self._file.close()
