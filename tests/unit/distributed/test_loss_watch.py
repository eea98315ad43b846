"""Which ranks are lost: those whose processes have ended unsaid; not those that are stopped, or have said so."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch.distributed as dist

from resnext_train.distributed.heartbeat import Heartbeat
from resnext_train.distributed.loss_watch import LossWatch
from resnext_train.distributed.process_identity import identity_of, is_gone, this_process

PATIENCE = 0.8


@pytest.fixture
def sleepers() -> Iterator[list[subprocess.Popen[bytes]]]:
    processes = [subprocess.Popen(["sleep", "60"]) for _ in range(2)]
    yield processes
    for process in processes:
        process.kill()
        process.wait()


def within(seconds: float, what: Callable[[], Any]) -> bool:
    deadline = time.monotonic() + seconds
    while not what() and time.monotonic() < deadline:
        time.sleep(0.02)
    return bool(what())


def test_a_process_is_gone_when_it_has_ended(sleepers: list[subprocess.Popen[bytes]]) -> None:
    first = sleepers[0]
    identity = identity_of(first.pid)
    assert not is_gone(identity)
    assert not is_gone(this_process())
    first.send_signal(signal.SIGSTOP)
    assert not is_gone(identity), "it may go on"
    first.kill()
    assert within(5, lambda: is_gone(identity)), "also before its parent has asked how it ended"
    first.wait()
    assert is_gone(identity)
    assert not is_gone(replace(identity, pid_space="another host")), "which this one cannot see"
    assert is_gone(replace(this_process(), started="1")), "another process with the same number"


class Ranks:
    """Three ranks: this process, and two others, whose heartbeats come from here, too."""

    def __init__(self, processes: list[subprocess.Popen[bytes]], elsewhere: bool = False) -> None:
        self.store = dist.TCPStore("127.0.0.1", 0, is_master=True)  # type: ignore[attr-defined]  # not re-exported
        self.hearts = [Heartbeat(self.store, rank, 3) for rank in range(3)]
        identities = [this_process(), *(identity_of(process.pid) for process in processes)]
        if elsewhere:
            identities[1] = replace(identities[1], host="b", pid_space="b")
        self.watch = LossWatch(self.hearts[0], identities, PATIENCE)

    def stop(self) -> None:
        for heart in self.hearts:
            heart.stop()


@pytest.fixture
def exits(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    codes: list[int] = []
    monkeypatch.setattr(os, "_exit", codes.append)
    for thing, name, seconds in ((Heartbeat, "_EVERY", 0.05), (Heartbeat, "_SILENCE", 1.0)):
        monkeypatch.setattr(thing, name, seconds)
    monkeypatch.setattr(LossWatch, "_EVERY", 0.05)
    monkeypatch.setattr(LossWatch, "_GRACE", 0.3)
    return codes


@pytest.mark.slow
def test_a_lost_rank_ends_this_one_and_others_do_not(
    sleepers: list[subprocess.Popen[bytes]], exits: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    ranks = Ranks(sleepers)
    recorded: list[str] = []
    try:
        with ranks.watch.recorded_by(lambda error: recorded.append(str(error))):
            ranks.hearts[2].end_in_order()
            ranks.hearts[2].stop()
            sleepers[1].kill()  # rank 2, which has said that it ends
            sleepers[0].send_signal(signal.SIGSTOP)
            assert not within(2 * PATIENCE, lambda: exits), "one has ended in order, the other is stopped"
            sleepers[0].kill()
            assert within(5, lambda: exits)
        assert exits == [1]
        sentence = "process 1 of 3 (counted from 0) is gone"
        assert sentence in recorded[0]
        assert capsys.readouterr().err.startswith(f"resnext: error: {sentence}")
    finally:
        ranks.stop()


@pytest.mark.slow
@pytest.mark.parametrize("busy", [False, True])
def test_a_rank_of_another_host_is_lost_by_its_silence(
    sleepers: list[subprocess.Popen[bytes]], exits: list[int], busy: bool
) -> None:
    ranks = Ranks(sleepers, elsewhere=True)
    try:
        assert not within(1.2 * PATIENCE, lambda: exits)
        ranks.hearts[1].stop()
        if busy:  # the main thread is on its way out
            assert not within(PATIENCE, lambda: exits)
            ranks.hearts[0].main_thread_ends.set()
        assert within(2 * PATIENCE, lambda: exits) is not busy
    finally:
        ranks.stop()


def test_of_ranks_that_leave_for_the_same_reason_one_says_it() -> None:
    store = dist.TCPStore("127.0.0.1", 0, is_master=True)  # type: ignore[attr-defined]
    first, second = (Heartbeat(store, rank, 2) for rank in range(2))
    assert first.leave("no compiler")
    assert not second.leave("no compiler")
    assert second.leave("a bad image")
    for heart in (first, second):
        heart.stop()


@pytest.mark.slow
def test_a_connection_that_breaks_once_does_not_end_a_heartbeat() -> None:
    class Broken:
        def set(self, key: str, value: str) -> None:
            raise RuntimeError("Broken pipe")

    store = dist.TCPStore("127.0.0.1", 0, is_master=True)  # type: ignore[attr-defined]
    heart = Heartbeat(store, 0, 1)
    heart._store = Broken()
    before = store.get("resnext_train/pulse/0")
    assert within(6, lambda: store.get("resnext_train/pulse/0") != before)
    heart.stop()
