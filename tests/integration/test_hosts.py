"""Runs over two hosts, started by scripts/multi_node.sh: real processes, real connections, and a host that is lost."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from helpers.commands import train
from helpers.hosts import Hosts, two_hosts
from helpers.ranks import run_ranks, train_ranks
from helpers.runs import SMALL, events

pytestmark = [pytest.mark.slow, pytest.mark.root]

LAUNCHER = Path(__file__).parents[2] / "scripts" / "multi_node.sh"
OPTIONS = [*SMALL, "log.every=1", "checkpoint.every_steps=1", "checkpoint.keep=9"]
QUICK = "keep_alive_interval=1,keep_alive_max_attempt=4,last_call_timeout=1"
"""A host is given up after 4 s without a sign of life, not 10; one that goes on alone waits 1 s for more, not 45."""


class Launch:
    """The command lines of both hosts, which differ in their number of processes at most."""

    def __init__(self, hosts: Hosts, out: Path, nodes: str, procs: tuple[int, int]) -> None:
        self.hosts, self.out, self._procs = hosts, out, procs
        out.mkdir(parents=True)
        # Spares the check of a new run, which test_launchers.py tests.
        (out / "state.json").write_text('{"status": "running", "step": 0}\n')
        self._launcher = [str(LAUNCHER), "--nodes", nodes, "--head", hosts.addresses[0], "--rdzv-conf", QUICK]
        self._run = ["--", "--config", "smoke.yaml", "--out", str(out), *OPTIONS]

    def start(self, host: int) -> subprocess.Popen[bytes]:
        command = [*self._launcher, "--procs", str(self._procs[host]), *self._run]
        return self.hosts.start(host, command, self._output(host), {"OMP_NUM_THREADS": "1", "PYTHON": sys.executable})

    def until(self, what: Callable[[], Any], *processes: subprocess.Popen[bytes]) -> None:
        """Wait for `what` while `processes` run."""
        deadline = time.monotonic() + 180
        while not what():
            assert time.monotonic() < deadline, self.told()
            assert all(p.poll() is None for p in processes), self.told()
            time.sleep(0.02)

    def finish(self, *processes: subprocess.Popen[bytes]) -> None:
        assert [p.wait(180) for p in processes] == [0] * len(processes), self.told()

    def told(self) -> str:
        return "\n".join(self._output(host).read_text() for host in (0, 1))

    def _output(self, host: int) -> Path:
        return self.out.with_name(f"host{host}.log")


def weights(checkpoint: Path) -> dict[str, torch.Tensor]:
    model: dict[str, torch.Tensor] = torch.load(checkpoint, weights_only=True)["model"]
    return model


def same(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[k], two[k]) for k in one)


def measured(run: Path, kind: str, *names: str) -> list[list[Any]]:
    return [[e[n] for n in names] for e in events(run, kind)]


def test_two_hosts_train_as_one_does_and_continue_when_a_lost_one_returns(tmp_path: Path) -> None:
    """One process on a host and two on another take the very steps of three on one, before one is lost and after."""
    one, out = tmp_path / "one", tmp_path / "two" / "run"
    with two_hosts() as hosts:
        launch = Launch(hosts, out, "2", (1, 2))
        first, second = launch.start(0), launch.start(1)
        launch.until((out / "checkpoints" / "epoch_0001.pt").exists, first, second)
        hosts.kill(1)
        second.wait()
        launch.finish(first, launch.start(1))
    run_ranks(train_ranks, 3, tmp_path, one, OPTIONS)
    assert same(weights(one / "checkpoints" / "last.pt"), weights(out / "checkpoints" / "last.pt"))
    names = ("epoch", "step", "train_loss", "val_count", "val_top1_correct", "val_loss")
    assert measured(out, "epoch", *names) == measured(one, "epoch", *names)
    assert measured(out, "step", "step", "loss") == measured(one, "step", "step", "loss")
    assert measured(out, "epoch", "epoch", "step", "val_count") == [[1, 3, 37], [2, 6, 37]]
    starts = measured(out, "start", "world_size", "step")
    assert [world_size for world_size, _ in starts] == [3, 3]
    assert 3 <= starts[1][1] < 6, "continued from the last checkpoint"
    assert json.loads((out / "state.json").read_text())["status"] == "done"
    assert json.loads((out / "summary.json").read_text())["last"]["count"] == 37


def test_with_a_range_of_hosts_the_one_that_is_left_goes_on_alone(tmp_path: Path) -> None:
    """One process on each of two hosts, and then one, is bit-identical to a single process throughout."""
    one, out = tmp_path / "one", tmp_path / "two" / "run"
    with two_hosts() as hosts:
        launch = Launch(hosts, out, "1:2", (1, 1))
        first, second = launch.start(0), launch.start(1)
        launch.until((out / "checkpoints" / "last.pt").exists, first, second)
        hosts.kill(1)
        second.wait()
        launch.finish(first)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    assert train(["--config", "smoke.yaml", "--out", str(one), *OPTIONS]) == 0
    torch.set_num_threads(threads)
    assert measured(out, "start", "world_size")[-2:] == [[2], [1]]
    assert measured(out, "step", "step", "loss") == measured(one, "step", "step", "loss")
    assert measured(out, "end", "weights_sha256") == measured(one, "end", "weights_sha256")
