"""What must be the same on all ranks, and the sentence that names those where it is not."""

from __future__ import annotations

import json
import os
import re
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.distributed as dist

from helpers.ranks import as_by_srun, refusals
from resnext_train.compute.precision import Precision
from resnext_train.distributed import dist_context
from resnext_train.distributed.agreement import RankFacts, disagreement, exchange_facts
from resnext_train.distributed.dist_context import DistContext
from resnext_train.distributed.same_recipe import check_same_recipe
from resnext_train.errors import InputError
from resnext_train.training import setup


@pytest.mark.parametrize(
    ("values", "told"),
    [
        (["a"] * 4, None),
        (["a", "a", "b", "a"], "process 2 of 4 (host h2) has b, the others a"),
        (["b", "a", "a", "b", "a"], "processes 0, 3 of 5 (hosts h0, h3) has b, the others a"),
        (["a", "b"], "process 1 of 2 (host h1) has b, the other a"),
        (["a", "b", "c", "a"], "process 1 of 4 (host h1) has b, process 2 (host h2) has c, the others a"),
        ([None, "a", "b", "a"], "process 2 of 4 (host h2) has b, the others a"),
        ([None, None, "a"], None),
    ],
)
def test_those_that_differ_from_most_are_named(values: list[str | None], told: str | None) -> None:
    assert disagreement("has", values, [f"h{rank}" for rank in range(len(values))]) == told


def test_of_many_ranks_and_hosts_some_are_named() -> None:
    told = disagreement("has", ["a"] * 40 + ["b"] * 24, [f"h{rank // 8}" for rank in range(64)])
    names = "40, 41, 42, 43, 44, 45, 46, 47 and 16 more"
    assert told == f"processes {names} of 64 (hosts h5, h6, h7) has b, the others a"


def pretend() -> None:
    """Ranks 0 and 2 have GPUs; rank 2 has an older torch."""
    patch = pytest.MonkeyPatch()
    if os.environ["RANK"] != "1":
        patch.setattr(dist_context, "pick_device", lambda local_rank: torch.device("cuda", local_rank))
        patch.setattr(torch.cuda, "device_count", lambda: 3)
        patch.setattr(torch.cuda, "set_device", lambda device: None)
        patch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid=f"GPU-{device.index}"))
    if os.environ["RANK"] == "2":
        patch.setattr(torch, "__version__", "2.10.9")


def pretend_one_gpu() -> None:
    """All tasks of a Slurm step are shown the same single GPU."""
    patch = pytest.MonkeyPatch()
    as_by_srun()
    patch.setattr(dist_context, "pick_device", lambda local_rank: torch.device("cuda", local_rank))
    patch.setattr(torch.cuda, "device_count", lambda: 1)
    patch.setattr(torch.cuda, "set_device", lambda device: None)
    patch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid=f"GPU-{device.index}"))


def pretend_old_gpu() -> None:
    if os.environ["RANK"] == "1":
        old = Precision("fp16", "cuda")
        pytest.MonkeyPatch().setattr(setup, "resolve_precision", lambda requested, device: old)
    else:
        new = Precision("bf16", "cuda")
        pytest.MonkeyPatch().setattr(setup, "resolve_precision", lambda requested, device: new)


def pretend_sweep() -> None:
    def other_recipe(sections: dict[str, dict[str, Any]], context: DistContext) -> None:
        data = {**sections["data"], "root": f"/data/{context.rank}", "workers": context.rank}
        seed = 7 if context.rank == 2 else 0
        check_same_recipe({**sections, "data": data, "train": {**sections["train"], "seed": seed}}, context)

    pytest.MonkeyPatch().setattr(setup, "check_same_recipe", other_recipe)


@pytest.mark.slow
def test_a_rank_without_a_gpu_and_one_with_another_torch_are_named_on_all(tmp_path: Path) -> None:
    told = refusals(pretend, 3, tmp_path)
    assert len(set(told)) == 1
    host = re.escape(socket.gethostname())
    assert re.match(rf"process 1 of 3 \(host {host}\) found no GPU, the others a GPU \(cuda\); ", told[0])
    installed = re.escape(torch.__version__.partition("+")[0])
    assert re.search(rf"; process 2 of 3 \(host {host}\) came with torch 2\.10\.9, the others {installed};", told[0])


@pytest.mark.slow
def test_tasks_of_slurm_that_see_one_gpu_are_refused(tmp_path: Path) -> None:
    """Two real processes with srun's variables meet; that they may not share a GPU is what they find there."""
    told = refusals(pretend_one_gpu, 2, tmp_path)
    assert len(set(told)) == 1
    assert told[0].startswith("processes 0, 1 of 2 ")


@pytest.mark.slow
def test_ranks_in_different_precisions_are_refused(tmp_path: Path) -> None:
    (told,) = set(refusals(pretend_old_gpu, 3, tmp_path))
    assert re.match(r"process 1 of 3 \(host .*\) would compute in fp16, the others in bf16: set train\.precision", told)


@pytest.mark.slow
def test_ranks_with_different_recipes_are_refused_by_key(tmp_path: Path) -> None:
    """As the tasks of an srun that are meant as runs of their own; hosts may hold the data in different places."""
    (told,) = set(refusals(pretend_sweep, 3, tmp_path))
    assert re.match(
        r"process 2 of 3 \(host .*\) was given train\.seed=7, the others train\.seed=0: all processes", told
    )


def test_facts_of_a_start_that_was_broken_off_are_not_taken() -> None:
    """The launcher's store has them, and the ranks are in another order now."""
    store = dist.HashStore()  # type: ignore[attr-defined]  # not re-exported
    old = RankFacts("b", software={"found": "no GPU"}, gpu="GPU-1")
    for rank in range(2):
        store.set(f"resnext_train/facts/{rank}", json.dumps(asdict(old)))
        store.set(f"resnext_train/facts_seen/{rank}", json.dumps([old.token, old.token]))
        store.set(f"resnext_train/facts_read/{rank}", old.token)
    new = [RankFacts(host, software={"found": "a GPU"}, gpu="GPU-1") for host in ("a", "b")]
    with ThreadPoolExecutor(2) as ranks:
        first = ranks.submit(exchange_facts, store, 0, 2, new[0])
        time.sleep(0.2)
        assert not first.done(), "the other one has not come yet"
        second = ranks.submit(exchange_facts, store, 1, 2, new[1])
        first.result(10)
        second.result(10)
    differing = [RankFacts("a", software={"found": "a GPU"}), RankFacts("b", software={"found": "no GPU"})]
    with ThreadPoolExecutor(2) as ranks:
        for task in [ranks.submit(exchange_facts, store, rank, 2, differing[rank]) for rank in range(2)]:
            with pytest.raises(InputError, match=r"^process 1 of 2 \(host b\) found no GPU, the other a GPU"):
                task.result(20)
