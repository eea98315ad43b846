"""How the ranks of a host share its cores. The expected counts are of two sockets with 56 cores each, and 8 GPUs."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
import torch

from helpers.commands import train
from helpers.ranks import exit_codes, run_ranks, start_command
from helpers.runs import RUN, events
from resnext_train.distributed.dist_context import DistContext
from resnext_train.distributed.usable_cores import share_of_cores

SOCKETS = [range(56), range(56, 112)]
NONE = Path("/no quota")


def test_ranks_bound_to_a_socket_share_it_with_those_that_are_bound_there(tmp_path: Path) -> None:
    bound = [SOCKETS[rank // 4] for rank in range(8)]
    assert [share_of_cores(bound, rank, NONE).part for rank in range(8)] == pytest.approx([14.0] * 8)
    free = [range(112)] * 8
    assert share_of_cores(free, 3, NONE).part == pytest.approx(14.0)
    assert share_of_cores([SOCKETS[0], SOCKETS[1]], 1, NONE).part == pytest.approx(56.0)
    assert share_of_cores([range(8 * r, 8 * r + 8) for r in range(8)], 5, NONE).part == pytest.approx(8.0)


def test_unequal_bindings_divide_each_core_by_those_that_may_use_it() -> None:
    shares = [share_of_cores([range(4), range(2), range(2, 8)], rank, NONE) for rank in range(3)]
    assert [share.part for share in shares] == pytest.approx([1 + 1, 1.0, 1 + 4])
    assert [(share.ranks, share.total) for share in shares] == [(3, 8.0)] * 3


def test_a_quota_is_divided_by_all_ranks(tmp_path: Path) -> None:
    quota = tmp_path / "cpu.max"
    quota.write_text("600000 100000\n")
    shares = [share_of_cores([range(16), range(16), range(16, 18)], rank, quota) for rank in range(3)]
    assert [share.part for share in shares] == pytest.approx([2.0, 2.0, 2.0])
    assert [share.quota for share in shares] == [6.0, 6.0, None], "the third has no more cores than that"
    assert {share.total for share in shares} == {6.0}
    quota.write_text("50000 100000\n")
    assert share_of_cores([range(4)], 0, quota).whole == 1


def own_part(context: DistContext) -> float:
    return context.cores.part


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="macOS binds no process to cores")
def test_ranks_tell_each_other_their_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cores = len(os.sched_getaffinity(0))
    assert run_ranks(own_part, 2, tmp_path) == [cores / 2] * 2


def threads_of_a_launcher() -> None:
    """As where multi_node.sh has divided the host's cores, and not those that this rank is bound to."""
    os.environ |= {"OMP_NUM_THREADS": "7", "RESNEXT_TRAIN_THREADS": "auto"}
    torch.set_num_threads(7)


def threads_of_a_user() -> None:
    os.environ["OMP_NUM_THREADS"] = "7"
    torch.set_num_threads(7)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="macOS binds no process to cores")
def test_threads_follow_the_cores_unless_a_user_has_chosen_them(tmp_path: Path) -> None:
    threads = []
    for prepare in (threads_of_a_launcher, threads_of_a_user):
        out = tmp_path / prepare.__name__
        options = [*RUN, "--out", str(out), "train.max_steps=1", "log.every=1"]
        assert exit_codes(start_command(train, 2, *options, prepare=prepare)) == [0, 0]
        threads += [start["threads"] for start in events(out, "start")]
    assert threads == [max(1, len(os.sched_getaffinity(0)) // 2), 7]
