from __future__ import annotations

import errno
import resource

import pytest

from resnext_train.distributed.process_limits import allow_open_files, check_process_limits, exceeded_limit
from resnext_train.errors import InputError


@pytest.mark.parametrize(
    ("error", "fact"),
    [
        (MemoryError(), "memory"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "memory"),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory"), "memory"),
        (RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"), "2.00 GiB"),
        (OSError(errno.EMFILE, "Too many open files"), "ulimit -n"),
        (RuntimeError("Too many open files. Communication with the workers is no longer possible."), "ulimit -n"),
        (BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable"), "ulimit -u"),
        (RuntimeError("can't start new thread"), "ulimit -u"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_limits_are_told_by_what_raises_them(error: Exception, fact: str) -> None:
    assert fact in str(exceeded_limit(error))


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "full"), RuntimeError("CUDA error"), ValueError("memory")])
def test_other_errors_are_none(error: Exception) -> None:
    assert exceeded_limit(error) is None


def test_as_many_files_may_be_open_as_the_system_lets() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (100, before[1]))
        with pytest.raises(InputError, match="ulimit -n"):
            check_process_limits()
        allow_open_files()
        check_process_limits()
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] > 100
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
