"""The exit code of `--procs`, from those of its ranks."""

from __future__ import annotations

import signal

import pytest
from torch.distributed.elastic.agent.server.api import RunResult, WorkerState
from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

from resnext_train.distributed.launcher import exit_code
from resnext_train.errors import FaultError


def result(codes: dict[int, int]) -> RunResult:
    """What torch's agent returns where ranks have ended with `codes`, in this order."""
    failures = {rank: ProcessFailure(rank, 1000 + rank, code, "") for rank, code in codes.items() if code}
    return RunResult(WorkerState.FAILED if failures else WorkerState.SUCCEEDED, failures=failures)


@pytest.mark.parametrize(
    ("codes", "expected"),
    [
        ({0: 0, 1: 0}, 0),
        ({1: 75, 0: 75}, 75),
        ({1: 75, 0: -signal.SIGTERM}, 75),  # the agent ended the first rank as it left
        ({1: 2, 0: 1}, 2),  # the second rank has met bad input, and the first has lost it
        ({1: -signal.SIGKILL, 0: 1}, 1),  # the first rank has said that it lost the second
    ],
)
def test_it_is_that_of_the_first_rank_with_one_of_its_own(codes: dict[int, int], expected: int) -> None:
    assert exit_code(result(codes), killed=False) == expected


@pytest.mark.parametrize(
    ("codes", "told", "code"),
    [
        ({0: -signal.SIGSEGV, 1: -signal.SIGTERM}, "process 0 .* SIGSEGV", 139),
        ({0: -signal.SIGTERM, 1: -signal.SIGKILL}, "process 1 .* SIGKILL", 137),
        ({1: -signal.SIGTERM, 0: -signal.SIGTERM}, "process 1 .* SIGTERM", 143),
    ],
)
def test_ranks_that_could_say_nothing_are_named(codes: dict[int, int], told: str, code: int) -> None:
    with pytest.raises(FaultError, match=told) as ended:
        exit_code(result(codes), killed=False)
    assert ended.value.exit_code == code


def test_killed_by_a_second_interrupt() -> None:
    with pytest.raises(KeyboardInterrupt):
        exit_code(result({0: -signal.SIGKILL, 1: -signal.SIGKILL}), killed=True)
