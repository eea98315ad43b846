"""resnext bench step and resnext bench scaling, with a tiny network."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from helpers.commands import Refuses, bench
from helpers.ranks import run_command, run_ranks
from helpers.runs import SMALL
from resnext_train.bench import bench_step
from resnext_train.bench.step_cost import flop_of, traffic_of
from resnext_train.bench.step_timer import PARTS, StepTimer
from resnext_train.compute.step_parts import part
from resnext_train.config import load_recipe
from resnext_train.distributed.dist_context import DistContext

TINY = ["--config", "smoke.yaml", *SMALL]


def check_consistent(result: dict[str, Any], world_size: int) -> None:
    """What follows from other figures does."""
    m, ms = result["measured"], result["ms"]
    assert (m["world_size"], m["batch_size"], m["micro_batches"], m["micro_batch"]) == (world_size, 16, 4, 4)
    assert list(ms) == list(PARTS)
    assert all(value >= 0 for value in ms.values())
    assert sum(ms.values()) == pytest.approx(result["step_ms"])
    assert all(ms[name] > 0 for name in ("color", "forward", "loss", "optimizer", "rest"))
    assert ms["backward"] + ms["all_reduce"] > 0, "on a busy machine the one may seem to take all of the other"
    for rate in result["rates"].values():
        assert 0 < rate["lowest"] <= rate["median"] <= rate["highest"]
        assert len(rate["rounds"]) == m["rounds"]
    if m["rounds"] == 1:  # the parts are all of the lap but its first and last microseconds
        assert 16_000 / result["step_ms"] == pytest.approx(result["rates"]["step"]["median"], rel=0.1)
    assert result["ratio"] == pytest.approx(result["rates"]["step"]["median"] / result["rates"]["bare"]["median"])


def test_a_step_by_parts_beside_a_bare_loop(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench_step, "LAP_SECONDS", 0.05)
    file = tmp_path / "step.json"
    assert bench(["step", *TINY, "--rounds", "1", "--json", str(file)]) == 0
    result = json.loads(file.read_text())
    check_consistent(result, 1)
    assert result["ms"]["all_reduce"] == 0
    beyond = sum(n for name, n in result["launches"].items() if name in ("input", "color", "rest"))
    assert result["launches_beyond"] == beyond <= result["launch_budget"]
    assert result["flop_per_s"] == pytest.approx(1000 * result["flop_per_step"] / result["step_ms"])
    assert result["of_machine"]["copy"] == pytest.approx(result["bytes_per_s"] / result["machine"]["copy_bytes_per_s"])
    assert 0 < result["of_machine"]["matmul"] < 2
    assert result["peak_memory_bytes"] > 1e8
    assert {"versions", "git_commit"} < set(result)
    out = capsys.readouterr().out
    for told in (
        "16 images over all processes, in 4 micro-batches of 4",
        "bare loop",
        "backward",
        "GB of the whole process",
    ):
        assert told in out


STAND_IN = """#!/bin/sh
test "$1 $2 $3 $4" = "-m resnext_train bench step" || exit 1
echo "$@" >> "$0.calls"
while test $# -gt 4; do shift; done
cp "${0%/*}/$2.json" "$4"
"""
"""Stands for python: `bench step ... --procs N --json FILE`, which ranks that import nothing have measured before."""


@pytest.mark.slow
def test_more_processes_take_the_same_step(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    options = [*TINY, "--rounds", "1"]
    for n in (1, 2):
        run_command(bench, n, "step", *options, "--json", str(tmp_path / f"{n}.json"))
    python, file = tmp_path / "python", tmp_path / "scaling.json"
    python.write_text(STAND_IN)
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    assert bench(["scaling", *options, "--procs", "2", "--json", str(file)]) == 0
    calls = [call.split()[2:-2] for call in Path(f"{python}.calls").read_text().splitlines()]
    assert [call[-2:] for call in calls] == [["--procs", "1"], ["--procs", "2"]]
    assert all(sorted(call[:-2]) == sorted(["bench", "step", *options]) for call in calls), calls
    result = json.loads(file.read_text())
    assert list(result["rates"]) == list(result["efficiency"]) == ["1", "2"]
    one, two = (result["rates"][n]["step"]["median"] for n in ("1", "2"))
    assert result["efficiency"] == pytest.approx({"1": 1.0, "2": two / one / 2})
    for n in (1, 2):
        of_n = {key: result[key][str(n)] for key in ("measured", "rates", "step_ms", "ms")}
        ratio = of_n["rates"]["step"]["median"] / of_n["rates"]["bare"]["median"]
        check_consistent({**of_n, "ratio": ratio}, n)
    assert "efficiency" in capsys.readouterr().out


def lap_without_sums(context: DistContext) -> dict[str, torch.Tensor]:
    """The weights, buffers and momentum after steps, and after a lap of steps that sum no gradients."""
    steps = bench_step.StepBench(load_recipe("smoke", SMALL), context)
    steps.take_step()
    runners = steps.runners(2, layouts=False)

    def state() -> torch.Tensor:
        momentum = [t for held in steps.step.optimizer.optimizer.state.values() for t in held.values()]
        return torch.cat([t.detach().flatten().double() for t in (*steps.step.model.state_dict().values(), *momentum)])

    before = state()
    assert runners["local"](0).images == 2 * 16
    after = state()
    runners["step"](1)
    return {"before": before, "after": after, "later": state()}


@pytest.mark.slow
def test_steps_that_sum_nothing_leave_no_trace(tmp_path: Path) -> None:
    one, two = run_ranks(lap_without_sums, 2, tmp_path)
    for states in (one, two):
        assert torch.equal(states["before"], states["after"])
        assert not torch.equal(states["after"], states["later"])
    assert torch.equal(one["later"], two["later"]), "the ranks have drifted apart"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["step", *TINY, "--rounds", "0"], ("--rounds 0", " 1")),
        (["step", *TINY, "--procs", "5"], ("5 processes", "4 micro-batches")),
        (["step", *TINY, "--baseline"], ("--baseline",)),
        (["step", *TINY, "train.precision=fp16"], ("train.precision=fp16", "GPU")),
        (["step", "--config", "smoke", "model.arch=resnext51_2x4d"], ("resnext51_2x4d",)),
        (["step", *TINY, "--json", "nowhere/out.json"], ("--json", "nowhere/out.json")),
        (["scaling", *TINY, "--procs", "1,0"], ("--procs 1,0", "1,2,4")),
        (["scaling", *TINY, "--procs", "two"], ("--procs two", "1,2,4")),
        (["scaling", *TINY, "--procs", "1,8"], ("8 processes", "4 micro-batches")),
        (["scaling", *TINY, "--tiers", "raw"], ("--tiers",)),
        (["data", *TINY, "--procs", "2"], ("--procs",)),
    ],
)
def test_refusals(arguments: list[str], told: tuple[str, ...], refuses: Refuses) -> None:
    error = refuses(bench, *arguments)
    assert all(fact in error for fact in told), error


def test_a_host_without_a_compiler_is_told_so(refuses: Refuses, monkeypatch: pytest.MonkeyPatch) -> None:
    def compiles(*arguments: Any) -> None:
        raise RuntimeError(
            "InvalidCxxCompiler: No working C++ compiler found in torch._inductor.config.cpp.cxx\n\nmore"
        )

    monkeypatch.setattr("resnext_train.cli.bench.measure_step", compiles)
    error = refuses(bench, "step", *TINY, "train.compile=default")
    assert "train.compile: torch.compile lacks what it needs" in error
    assert error.endswith("set train.compile=off\n")


def test_scaling_passes_on_the_sentence_of_the_step_and_not_what_follows(
    refuses: Refuses, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = tmp_path / "python"
    step.write_text(
        "#!/bin/sh\necho 'resnext bench step: error: no compiler' >&2\necho 'a note of torch' >&2\nexit 2\n"
    )
    step.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(step))
    assert refuses(bench, "scaling", *TINY, "--procs", "1").endswith("error: on 1 process: no compiler\n")


def test_a_part_within_another_counts_as_itself_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(100))
    monkeypatch.setattr("resnext_train.bench.step_timer.time.perf_counter", lambda: float(next(clock)) ** 2)
    timer = StepTimer(torch.device("cpu"))
    with timer.observe():  # marks at 0, 1, 4, 9, 16, 25, 36, 49
        with part("backward"), part("forward"):
            pass
        with part("optimizer"):
            pass
    seconds = timer.take()
    told = {
        "rest": 1 + (25 - 16) + (49 - 36),
        "backward": (4 - 1) + (16 - 9),
        "forward": 9 - 4,
        "optimizer": 36 - 25,
    }
    assert {name: value for name, value in seconds.items() if value} == told
    assert sum(seconds.values()) == 49
    assert sum(timer.take().values()) == 0


def test_what_a_step_computes_and_moves_is_counted() -> None:
    layer = torch.nn.Linear(16, 4, bias=False)
    images = torch.ones(8, 16, requires_grad=True)
    assert flop_of(lambda: layer(images).sum().backward()) == 3 * (2 * 8 * 16 * 4)
    a, b = torch.ones(10, 10), torch.ones(10, 10)
    assert traffic_of(lambda: a + b) == 3 * 400
    assert traffic_of(lambda: (a.view(100), a.t(), torch.empty(50))) == 0
    assert traffic_of(lambda: a.add_(b)) == 3 * 400
