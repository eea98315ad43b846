"""The check of the GPU path: a stage that fails, hangs or crashes never passes, and never keeps others from running."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from scripts.gpu_check import __main__ as command
from scripts.gpu_check import parity, speed
from scripts.gpu_check.environment import describe
from scripts.gpu_check.report import CannotRunHereError, Host, Report
from scripts.gpu_check.runner import Stage, exit_code, run_stages

STAGES_OF_A_TEST = """
import json, os, pathlib, signal, subprocess, sys, time
from scripts.gpu_check.report import CannotRunHereError

def passes(host, report):
    report.record(device=host.device, ranks=host.ranks, before=json.loads(pathlib.Path(os.environ["OUT"]).read_text()))

def fails(host, report):
    report.at_most("error", 0.5, 0.1)
    report.at_least("ratio", float("nan"), 0.9)
    report.record(measured=3)

def raises(host, report):
    raise ValueError("no such thing\\nand more")

def crashes(host, report):
    report.record(reached=1)
    os.kill(os.getpid(), signal.SIGSEGV)

def leaves(host, report):
    report.record(reached=1)
    sys.exit(0)

def hangs(host, report):
    report.record(reached=2)
    other = subprocess.Popen(["sleep", "60"], start_new_session=True)
    pathlib.Path(os.environ["PIDS"]).write_text(str(other.pid))
    time.sleep(60)

def skips(host, report):
    report.record(looked=True)
    raise CannotRunHereError("it needs two moons")

def fails_and_skips(host, report):
    report.require(False, "wrong")
    raise CannotRunHereError("it needs two moons")

def checks_nothing(host, report):
    pass
"""


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[str, Any]]:
    """Each kind of stage run for real, in processes; by name."""
    (tmp_path / "stages_of_a_test.py").write_text(STAGES_OF_A_TEST)
    out = tmp_path / "gpu.json"
    for name, value in (("PYTHONPATH", tmp_path), ("OUT", out), ("PIDS", tmp_path / "pids")):
        monkeypatch.setenv(name, str(value))
    names = [
        *("fails", "raises", "crashes", "leaves", "hangs", "skips", "fails_and_skips", "checks_nothing", "passes"),
        "absent",
    ]
    stages = [Stage(name, name, f"stages_of_a_test:{name}", (60, 1.5 if name == "hangs" else 60)) for name in names]
    returned = run_stages(stages, "cpu", 0, {"gpu": None}, out)
    written = json.loads(out.read_text())
    assert written == {"gpu": None, "stages": returned}
    assert [r["name"] for r in returned] == names
    return {r["name"]: r for r in returned}


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc, to find what a stage has left")
def test_whatever_a_stage_does_it_gets_its_verdict_and_the_others_run(
    results: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    assert {name: r["verdict"] for name, r in results.items()} == {
        **dict.fromkeys(("fails", "raises", "crashes", "leaves", "hangs", "fails_and_skips"), "failed"),
        **{"skips": "skipped", "checks_nothing": "failed", "passes": "passed", "absent": "failed"},
    }
    assert results["fails"]["reason"] == "error is 0.5, over 0.1; ratio is nan, under 0.9"
    assert results["fails"]["figures"] == {"error": 0.5, "ratio": "nan", "measured": 3}
    assert results["raises"]["reason"] == "ValueError: no such thing"
    assert "SIGSEGV" in results["crashes"]["reason"]
    assert results["crashes"]["figures"] == {"reached": 1}, "what was measured before is kept"
    assert "1.5 s" in results["hangs"]["reason"]
    assert results["hangs"]["figures"] == {"reached": 2}
    assert 1.5 <= results["hangs"]["seconds"] < 20
    assert results["skips"]["reason"] == "it needs two moons"
    figures = results["passes"]["figures"]
    assert (figures["device"], figures["ranks"]) == ("cpu", 2)
    assert len(figures["before"]["stages"]) == 8, "results are written as stages end"
    assert exit_code(list(results.values())) == 1
    orphan = Path("/proc") / (tmp_path / "pids").read_text()
    deadline = time.monotonic() + 10
    while orphan.exists() and "Z" not in (orphan / "stat").read_text().split()[2] and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not orphan.exists() or "Z" in (orphan / "stat").read_text().split()[2], (
        "a process in another session is left"
    )


def test_no_stage_begins_when_the_time_is_over() -> None:
    stage = Stage("late", "late", "nowhere:nothing", (60, 60))
    (late,) = run_stages([stage], "cpu", 0, {}, None, seconds=5)
    assert (late["verdict"], late["figures"]) == ("skipped", {})
    assert "5 s" in late["reason"]
    assert exit_code([late]) == exit_code([{"verdict": "passed"}, late]) == 1


@pytest.mark.parametrize(
    ("verdicts", "code"),
    [(["passed", "skipped"], 0), (["passed"], 0), (["skipped"], 1), ([], 1), (["passed", "failed", "skipped"], 1)],
)
def test_skipped_is_never_passed(verdicts: list[str], code: int) -> None:
    assert exit_code([{"verdict": verdict} for verdict in verdicts]) == code


@pytest.mark.slow
def test_stages_run_on_a_cpu(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "gpu.json"
    assert command.main(["--device", "cpu", "--stages", "A,tests", "--out", str(out)]) == 0
    written = json.loads(out.read_text())
    assert {"gpu", "driver", "torch", "cudnn", "nccl", "topology", "commit"} < set(written)
    links, tests = written["stages"]
    assert list(links) == list(tests) == ["name", "verdict", "reason", "seconds", "figures"]
    assert (links["name"], links["verdict"], links["figures"]["ranks"]) == ("A", "passed", 2)
    assert links["figures"]["all_reduce_bytes_per_s"] > 1e6
    assert "copies to a GPU" in links["reason"]
    assert (tests["verdict"], tests["figures"]) == ("skipped", {})
    assert "1 passed, 0 failed, 1 skipped on cpu" in capfd.readouterr().out


def test_without_a_gpu_nothing_is_checked_unless_the_cpu_is_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the process that describes the host would say: it is asked here, where torch is imported."""
    described = subprocess.CompletedProcess([], 0, json.dumps(describe()), "")
    monkeypatch.setattr(subprocess, "run", lambda *arguments, **_: described)
    why = "torch sees no GPU on this host" if torch.version.cuda else "this torch is built without CUDA"
    out = tmp_path / "gpu.json"
    assert command.main(["--stages", "tests", "--out", str(out)]) == 1
    assert capsys.readouterr() == ("", f"gpu_check: {why}; what a CPU can show: --device cpu\n")
    assert not out.exists()


def test_without_a_torch_that_can_be_imported_nothing_is_checked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "torch.py").write_text("raise ImportError('libcuda.so.1: no such file')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    out = tmp_path / "gpu.json"
    assert command.main(["--stages", "tests", "--out", str(out)]) == 1
    assert capsys.readouterr() == ("", "gpu_check: ImportError: libcuda.so.1: no such file\n")
    assert not out.exists()


def test_mistakes_are_told_in_one_sentence(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert command.main(["--stages", "A,Z"]) == 2
    assert "no stage Z" in capsys.readouterr().err
    assert command.main(["--out", str(tmp_path / "nowhere" / "x.json")]) == 2
    assert "does not exist" in capsys.readouterr().err
    monkeypatch.setattr(command, "find_spec", lambda name: None if name in ("yaml", "PIL") else os)
    assert command.main(["--device", "cpu"]) == 1
    assert "missing pillow, pyyaml;" in capsys.readouterr().err


@pytest.mark.parametrize(("third", "told"), [(1e-6, "fp64_error_after_3_steps is 1e-06, over 1e-08"), (0.0, "")])
def test_later_steps_are_compared_with_those_of_the_cpu(
    third: float, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def states(error: float) -> list[list[dict[str, torch.Tensor]]]:
        weights = torch.tensor([3.0, 4.0], dtype=torch.float64)
        return [[{"w": weights * (1 + error * (n == 2)), "loss": torch.ones(1)} for n in range(3)]]

    monkeypatch.setattr(parity, "take_steps", lambda *_: states(0))
    monkeypatch.setattr(parity, "alone", lambda work, host, *arguments: states(third))
    report = Report(tmp_path / "result.json")
    parity.compare_with_cpu(Host("cpu", 0, tmp_path, 60), report)
    report.finish()
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["verdict"] == ("failed" if third else "passed")
    assert told in result["reason"]
    assert third or "compared with itself" in result["reason"]


@pytest.mark.parametrize(
    ("measured", "told"),
    [
        (["bf16, 1 × 64"], "bf16, 8 × 32: not measured before the time was over"),
        (["bf16, 1 × 64", "bf16, 8 × 32"], ""),
    ],
)
def test_speed_is_not_shown_without_the_most_telling_cases(
    measured: list[str], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ranks(work: object, world_size: int, host: Host, config: str, cases: dict[str, Any], *_: object) -> Any:
        return [{case: {"ratio": 0.95} for case in cases if case in measured}]

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda emulated: True)
    monkeypatch.setattr(speed, "run_ranks", ranks)
    report = Report(tmp_path / "result.json")
    speed.measure_steps(Host("cuda", 1, tmp_path, 60), report)
    report.finish()
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["verdict"] == ("failed" if told else "passed")
    assert told in result["reason"]
    assert list(result["figures"]) == measured


def test_speed_on_a_cpu_is_recorded_and_not_judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "run_ranks", lambda *_: [{"cpu": {"ratio": 0.1}}])
    report = Report(tmp_path / "result.json")
    with pytest.raises(CannotRunHereError, match="not judged") as reason:
        speed.measure_steps(Host("cpu", 0, tmp_path, 60), report)
    report.finish(skipped=str(reason.value))
    result = json.loads((tmp_path / "result.json").read_text())
    assert (result["verdict"], result["figures"]) == ("skipped", {"cpu": {"ratio": 0.1}})
