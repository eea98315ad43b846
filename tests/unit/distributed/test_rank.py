"""Which rank a process is, by torchrun's variables and by Slurm's, and what is nonsense in them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

import pytest

from helpers.commands import Refuses, train
from helpers.ranks import as_by_srun, exit_codes, start_command
from helpers.runs import RUN, events
from resnext_train.cli.main import main
from resnext_train.distributed import dist_context
from resnext_train.distributed.dist_context import connect
from resnext_train.distributed.rank import Rank, this_rank
from resnext_train.distributed.slurm_step import first_host, tasks_per_node
from resnext_train.errors import InputError

TORCHRUN = {"RANK": "1", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}
TORCHRUN |= {"MASTER_ADDR": "node1", "MASTER_PORT": "29500"}
SLURM = {
    "SLURM_JOB_ID": "1234567",
    "SLURM_STEP_ID": "2",
    "SLURM_PROCID": "5",
    "SLURM_NTASKS": "11",
    "SLURM_STEP_NUM_TASKS": "11",
    "SLURM_LOCALID": "1",
    "SLURM_NODEID": "1",
    "SLURM_STEP_TASKS_PER_NODE": "4(x2),3",
    "SLURM_STEP_NODELIST": "node[03-05]",
}


@pytest.fixture(autouse=True)
def _bare(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name in TORCHRUN or name.startswith("SLURM_"):
            monkeypatch.delenv(name)


def set_all(monkeypatch: pytest.MonkeyPatch, variables: Mapping[str, str | None]) -> None:
    for name, value in variables.items():
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"RANK": "4"}, "RANK=4.*WORLD_SIZE=4"),
        ({"RANK": "-1"}, "RANK=-1"),
        ({"RANK": None}, "^RANK is not set"),
        ({"WORLD_SIZE": "abc"}, "WORLD_SIZE=abc"),
        ({"WORLD_SIZE": "0"}, "WORLD_SIZE=0"),
        ({"WORLD_SIZE": None}, "^WORLD_SIZE is not set"),
        ({"LOCAL_RANK": "2"}, "LOCAL_RANK=2.*LOCAL_WORLD_SIZE=2"),
        ({"LOCAL_WORLD_SIZE": "8"}, "LOCAL_WORLD_SIZE=8.*WORLD_SIZE=4"),
        ({"MASTER_ADDR": None}, "^MASTER_ADDR is not set"),
        ({"MASTER_PORT": "70000"}, "MASTER_PORT=70000"),
        ({"MASTER_PORT": "²"}, "MASTER_PORT=²"),
        ({"MASTER_PORT": None}, "^MASTER_PORT is not set"),
    ],
    ids=str,
)
def test_nonsense_is_told(monkeypatch: pytest.MonkeyPatch, changed: dict[str, str | None], told: str) -> None:
    set_all(monkeypatch, {**TORCHRUN, **changed})
    with pytest.raises(InputError, match=told):
        this_rank()


def test_a_command_tells_it_in_one_sentence(monkeypatch: pytest.MonkeyPatch, refuses: Refuses, tmp_path: Path) -> None:
    set_all(monkeypatch, TORCHRUN | {"RANK": "9"})
    assert "RANK=9" in refuses(train, *RUN, "--out", str(tmp_path))


def test_torchruns_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    set_all(monkeypatch, TORCHRUN | SLURM)
    assert this_rank() == Rank(1, 4, 1, 2, "node1", 29500), "torchrun may run in a Slurm step"
    set_all(monkeypatch, {"LOCAL_RANK": None, "LOCAL_WORLD_SIZE": "", "RANK": "0", "WORLD_SIZE": "1"})
    assert this_rank() == Rank()


@pytest.mark.slow
def test_an_address_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    set_all(monkeypatch, TORCHRUN | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "9"})
    monkeypatch.setattr(dist_context, "_JOIN", timedelta(seconds=1))
    with pytest.raises(InputError, match=r"MASTER_ADDR=127\.0\.0\.1, MASTER_PORT=9\b"), connect():
        pass


def test_a_task_of_srun(monkeypatch: pytest.MonkeyPatch) -> None:
    set_all(monkeypatch, SLURM)
    place = this_rank()
    assert (place.rank, place.world_size, place.local_rank, place.local_world_size) == (5, 11, 1, 4)
    assert place.address == "node03"
    assert 1024 <= place.port < 32_768, "a port of the system's own may be taken"
    monkeypatch.setenv("SLURM_STEP_ID", "3")
    assert this_rank().port != place.port, "two steps of a job run side by side"
    set_all(monkeypatch, {"SLURM_NODEID": "2", "SLURM_PROCID": "10", "SLURM_LOCALID": "2"})
    assert this_rank().local_world_size == 3
    set_all(monkeypatch, {"MASTER_ADDR": "other", "MASTER_PORT": "1234"})
    assert (this_rank().address, this_rank().port) == ("other", 1234)


@pytest.mark.parametrize(
    "changed",
    [
        {"SLURM_STEP_ID": None, "SLURM_PROCID": "0"},  # a batch script
        {"SLURM_STEP_ID": "4294967290"},  # an interactive one
        {"SLURM_PTY_PORT": "43210"},  # srun --pty bash
        {"SLURM_STEP_NUM_TASKS": "1"},
    ],
    ids=str,
)
def test_no_task_of_several(monkeypatch: pytest.MonkeyPatch, changed: dict[str, str | None]) -> None:
    set_all(monkeypatch, {**SLURM, **changed})
    assert this_rank() == Rank()


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"SLURM_STEP_TASKS_PER_NODE": "4(x2"}, "SLURM_STEP_TASKS_PER_NODE"),
        ({"SLURM_STEP_NODELIST": "node[03-"}, "SLURM_STEP_NODELIST"),
        ({"SLURM_STEP_NODELIST": None}, "SLURM_STEP_NODELIST"),
        ({"SLURM_LOCALID": "x"}, "SLURM_LOCALID"),
        ({"SLURM_NODEID": "3"}, "SLURM_NODEID"),
        ({"SLURM_PROCID": "11"}, "SLURM_PROCID=11"),
    ],
    ids=str,
)
def test_what_cannot_be_read_is_refused(
    monkeypatch: pytest.MonkeyPatch, changed: dict[str, str | None], told: str
) -> None:
    set_all(monkeypatch, {**SLURM, **changed})
    with pytest.raises(InputError, match=told):
        this_rank()


def test_lists_of_slurm() -> None:
    """As in its manual, srun(1)."""
    assert tasks_per_node("4(x2),3") == [4, 4, 3]
    assert tasks_per_node("2(x3),1") == [2, 2, 2, 1]
    assert tasks_per_node("8") == [8]
    firsts = {"node[03-05,7],other": "node03", "a,b": "a", "n7": "n7", "rack[1-2]n[008,9].x-y": "rack1n008.x-y"}
    assert {text: first_host(text) for text in firsts} == firsts


def test_procs_and_other_commands_take_no_part_in_a_step(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    set_all(monkeypatch, SLURM)
    assert main(["info", "resnet18"]) == 0
    assert "resnet18" in capsys.readouterr().out.lower().replace("-", ""), "though rank 5 prints nothing"
    set_all(monkeypatch, SLURM)
    assert main(["train", "--procs", "5", "--config", "smoke"]) == 2
    assert "5 processes but only 4 micro-batches" in capsys.readouterr().err


@pytest.mark.slow
def test_tasks_of_srun_are_the_ranks_of_one_run(tmp_path: Path) -> None:
    options = [*RUN, "--out", str(tmp_path / "run"), "train.max_steps=1", "log.every=1"]
    assert exit_codes(start_command(train, 2, *options, prepare=as_by_srun)) == [0, 0]
    assert [start["world_size"] for start in events(tmp_path / "run", "start")] == [2]
