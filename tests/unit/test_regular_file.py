from __future__ import annotations

import errno
import os
import socket
from pathlib import Path

import pytest

from resnext_train.regular_file import IrregularFileError, TooLargeFileError, read_regular, user_path


def test_a_file_is_read_whole_or_in_part(tmp_path: Path) -> None:
    path, content = tmp_path / "x", bytes(range(256)) * 100
    path.write_bytes(content)
    assert read_regular(path, len(content)) == content
    assert read_regular(str(path), 10, offset=300, size=10) == content[300:310]
    assert read_regular(path, 100, offset=25_590, size=100) == content[25_590:], "the file ends earlier"
    assert read_regular(path, len(content), offset=30_000) == b""


def test_a_file_of_the_kernel_states_no_size() -> None:
    assert read_regular("/proc/version", 1 << 20) == Path("/proc/version").read_bytes() != b""


def test_the_limit(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(bytes(1000))
    assert len(read_regular(tmp_path / "x", 1000)) == 1000
    with pytest.raises(TooLargeFileError, match="999 bytes"):
        read_regular(tmp_path / "x", 999)


def test_a_sparse_file_beyond_the_limit_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "x").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(TooLargeFileError):
        read_regular(tmp_path / "x", 1 << 30)


def test_what_is_no_file_is_named(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    bound = socket.socket(socket.AF_UNIX)
    bound.bind(str(tmp_path / "socket"))
    bound.close()
    for path, kind in (("pipe", "pipe"), ("socket", "socket"), ("/dev/zero", "device"), (".", "folder")):
        with pytest.raises(IrregularFileError) as caught:
            read_regular(tmp_path / path, 10)
        assert kind in str(caught.value)
        assert caught.value.errno == errno.ENXIO


def test_a_link_to_itself_is_an_error_of_the_system(tmp_path: Path) -> None:
    (tmp_path / "x").symlink_to(tmp_path / "x")
    with pytest.raises(OSError, match="x") as caught:
        read_regular(tmp_path / "x", 10)
    assert caught.value.errno == errno.ELOOP


def test_a_user_that_is_none_is_part_of_a_name() -> None:
    assert user_path("~/x") == Path.home() / "x"
    assert user_path("~nobody-of-this-name/x") == Path("~nobody-of-this-name/x")
