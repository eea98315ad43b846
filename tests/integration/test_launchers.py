"""The launch scripts by themselves, with a stand-in for torchrun, and for Slurm, that obeys the same contract."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"
pytestmark = pytest.mark.skipif(shutil.which("ip") is None, reason="needs the command ip (iproute2)")

PYTHON = """
    import json, os, pathlib, signal, sys, time

    if sys.argv[1] == "-c":  # a question to the package
        os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
    out = pathlib.Path(sys.argv[sys.argv.index("--out") + 1])
    log = pathlib.Path(os.environ["STAND_IN_LOG"])

    def tell(**what):
        with log.open("a") as file:
            file.write(json.dumps(what) + "\\n")

    def state(status, step):
        (out / ".new").write_text(json.dumps({"status": status, "step": step}) + "\\n")
        (out / ".new").replace(out / "state.json")

    def stop(number, frame):
        tell(signal=signal.Signals(number).name)
        time.sleep(0.2)  # for a second one
        state("preempted", 7)
        sys.exit(1)

    if "--dry-run" in sys.argv:
        sys.exit(int(os.environ.get("STAND_IN_CHECK", 0)))
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
        signal.signal(number, stop)
    names = ("OMP_NUM_THREADS", "RESNEXT_TRAIN_THREADS", "GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME",
             "TORCH_DISABLE_SHARE_RDZV_TCP_STORE")
    tell(argv=sys.argv[1:], **{n: os.environ.get(n) for n in names})
    code = os.environ.get("STAND_IN_CODE")
    if code:
        sys.exit(int(code))
    if (out / "state.json").exists():
        state("done", 9)
        sys.exit(0)
    out.mkdir(exist_ok=True)
    state("running", 0)
    time.sleep(60)
"""
"""Stands for python: trains until told to stop, at the second start to the end."""


class StandIn:
    """A PYTHON for the launcher, and what it was called with."""

    def __init__(self, folder: Path) -> None:
        self.out, self._log = folder / "run", folder / "calls.jsonl"
        self.env = {**os.environ, "PYTHON": str(folder / "python"), "STAND_IN_LOG": str(self._log)}
        for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
            self.env.pop(name, None)
        program(folder / "python", PYTHON)

    def calls(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._log.read_text().splitlines()] if self._log.exists() else []

    def starts(self) -> list[dict[str, Any]]:
        return [call for call in self.calls() if "argv" in call]

    def signals(self) -> list[str]:
        return [call["signal"] for call in self.calls() if "signal" in call]

    def start(self, *options: str, head: str = "localhost") -> subprocess.Popen[str]:
        command = [str(SCRIPTS / "multi_node.sh"), "--nodes", "1", "--head", head, *options, "--"]
        return subprocess.Popen(
            [*command, "--config", "smoke.yaml", "--out", str(self.out)],
            stderr=subprocess.PIPE,
            text=True,
            env=self.env,
            start_new_session=True,
        )

    def run(self, *options: str, head: str = "localhost") -> int:
        process = self.start(*options, head=head)
        process.communicate(timeout=30)
        return process.returncode

    def until(self, what: Callable[[], Any]) -> None:
        deadline = time.monotonic() + 30
        while not what():
            assert time.monotonic() < deadline
            time.sleep(0.02)


def program(path: Path, text: str) -> None:
    path.write_text(f"#!{sys.executable} -S\n{textwrap.dedent(text)}")
    path.chmod(0o755)


@pytest.fixture
def stand_in(tmp_path: Path) -> StandIn:
    return StandIn(tmp_path)


def launched(*arguments: str, **env: str) -> tuple[int, str]:
    """Exit code of multi_node.sh and what it said."""
    done = subprocess.run(
        [str(SCRIPTS / "multi_node.sh"), *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={**os.environ, **env},
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "--nodes takes a number of hosts or a range"),
        (["--nodes"], "--nodes needs a value"),
        (["--nodes", "0", "--head", "h"], "--nodes takes"),
        (["--nodes", "3:2", "--head", "h"], "starts above its end"),
        (["--nodes", "2"], "--head takes HOST or HOST:PORT"),
        (["--nodes", "2", "--head", "h:70000"], "70000 is no port"),
        (["--nodes", "2", "--head", "h", "--procs", "all"], "--procs takes"),
        (["--nodes", "2", "--head", "h", "--restarts", "-1"], "--restarts takes"),
        (["--nodes", "2", "--head", "h", "--config", "c"], "behind --"),
        (["--nodes", "2", "--head", "h", "--", "--config", "c"], "--out DIR"),
        (["--nodes", "2", "--head", "h", "--", "--out", "o", "--procs", "2"], "--procs is for this script"),
        (["--nodes", "2", "--head", "no.such.invalid", "--", "--out", "o"], "knows no address of no.such.invalid"),
        (["--nodes", "2", "--head", "localhost", "--", "--out", "o"], "no other host reaches it"),
    ],
)
def test_a_mistake_is_told_in_one_sentence(arguments: list[str], told: str) -> None:
    code, text = launched(*arguments)
    assert code == 2
    assert told in text
    assert text.startswith("multi_node.sh: error: ")
    assert text.count("\n") == 1


def test_help() -> None:
    code, text = launched("--help")
    assert code == 0
    for option in ("--nodes", "--head", "--procs", "--restarts", "--rdzv-conf", "SIGUSR1"):
        assert option in text


def test_a_mistake_in_the_recipe_is_told_once_before_torchrun_starts(tmp_path: Path) -> None:
    arguments = ["--nodes", "1", "--head", "localhost", "--procs", "4", "--"]
    arguments += ["--config", "smoke.yaml", "--out", str(tmp_path / "run"), "train.epoch=3"]
    code, text = launched(*arguments, PYTHON=sys.executable)
    assert code == 2
    assert text.startswith("resnext train: error: ")
    assert text.count("\n") == 1


def test_more_processes_than_micro_batches_are_told_once_before_torchrun_starts(tmp_path: Path) -> None:
    """Also as slurm.sh starts the script: as one of several tasks of a step, which are no ranks."""
    arguments = ["--nodes", "1", "--head", "localhost", "--procs", "32", "--"]
    slurm = {"SLURM_PROCID": "0", "SLURM_STEP_ID": "0", "SLURM_NTASKS": "2", "SLURM_JOB_ID": "1", "SLURM_LOCALID": "0"}
    slurm |= {"SLURM_STEP_TASKS_PER_NODE": "1(x2)", "SLURM_STEP_NODELIST": "no.such.invalid"}
    code, text = launched(
        *arguments, "--config", "resnext50_32x4d", "--out", str(tmp_path / "run"), PYTHON=sys.executable, **slurm
    )
    assert code == 2
    assert text.startswith("resnext train: error: 32 processes but only 8 micro-batches")
    assert text.endswith(": train.batch_size=1024 optimizer.lr=0.4 schedule.warmup=5\n")
    assert text.count("\n") == 1


def test_the_launch_line(stand_in: StandIn) -> None:
    stand_in.env |= {"CUDA_VISIBLE_DEVICES": "0,1,2", "STAND_IN_CODE": "0"}
    stand_in.env.pop("OMP_NUM_THREADS", None)
    assert stand_in.run("--restarts", "5", "--rdzv-conf", "join_timeout=7", head="localhost:4321") == 0
    (start,) = stand_in.starts()
    argv = start["argv"]
    assert argv[:2] == ["-m", "torch.distributed.run"]
    here = argv.index("resnext_train")
    assert argv[here - 1 :] == ["-m", "resnext_train", "train", "--config", "smoke.yaml", "--out", str(stand_in.out)]
    options = dict(a.split("=", 1) for a in argv[2 : here - 1])
    assert (options["--nnodes"], options["--nproc-per-node"], options["--max-restarts"]) == ("1", "3", "5")
    assert options["--rdzv-endpoint"] == "127.0.0.1:4321"
    assert options["--local-addr"] == "127.0.0.1"
    assert options["--rdzv-conf"].startswith("is_host=1,")
    assert options["--rdzv-conf"].endswith(",join_timeout=7")
    assert options["--signals-to-handle"] == "SIGTERM,SIGINT,SIGUSR1,SIGHUP"
    assert ("--numa-binding" in options) == (shutil.which("numactl") is not None)
    assert start["OMP_NUM_THREADS"] == str(max(1, len(os.sched_getaffinity(0)) // 3))
    assert start["RESNEXT_TRAIN_THREADS"] == "auto"
    assert (start["GLOO_SOCKET_IFNAME"], start["NCCL_SOCKET_IFNAME"]) == ("lo", "=lo")
    assert start["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] == "1"


def test_what_is_set_already_stays(stand_in: StandIn) -> None:
    stand_in.env |= {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "5", "STAND_IN_CODE": "0"}
    stand_in.env |= {"GLOO_SOCKET_IFNAME": "ib0", "NCCL_SOCKET_IFNAME": "ib"}
    assert stand_in.run() == 0
    (start,) = stand_in.starts()
    assert "--nproc-per-node=1" in start["argv"]
    assert not any(a.startswith("--numa-binding") for a in start["argv"])
    assert (start["OMP_NUM_THREADS"], start["RESNEXT_TRAIN_THREADS"]) == ("5", None)
    assert (start["GLOO_SOCKET_IFNAME"], start["NCCL_SOCKET_IFNAME"]) == ("ib0", "ib")


def test_torchrun_is_not_started_when_the_check_fails(stand_in: StandIn) -> None:
    stand_in.env["STAND_IN_CHECK"] = "2"
    assert stand_in.run() == 2
    assert stand_in.calls() == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_told_to_stop_it_stops_torchrun_once_and_ends_with_75(stand_in: StandIn, number: signal.Signals) -> None:
    """Also when the signal goes to the whole foreground group and comes twice, as from an impatient terminal."""
    launcher = stand_in.start()
    stand_in.until((stand_in.out / "state.json").exists)
    for _ in range(2):
        os.killpg(launcher.pid, number)
        time.sleep(0.05)
    _, told = launcher.communicate(timeout=30)
    assert launcher.returncode == 75
    assert "the run is saved after step 7" in told
    assert stand_in.signals() == ["SIGTERM"]
    assert len(stand_in.starts()) == 1


@pytest.mark.parametrize("slow", [False, True])
def test_told_to_save_it_starts_again(stand_in: StandIn, tmp_path: Path, slow: bool) -> None:
    """Also where the signal comes before a busy machine lets the script note what it has started."""
    if slow:
        (tmp_path / "slow.sh").write_text("""trap '[[ $BASH_COMMAND != "child=\\$!" ]] || sleep 1' DEBUG""")
        stand_in.env["BASH_ENV"] = str(tmp_path / "slow.sh")
    launcher = stand_in.start()
    stand_in.until((stand_in.out / "state.json").exists)
    launcher.send_signal(signal.SIGUSR1)
    _, told = launcher.communicate(timeout=30)
    assert launcher.returncode == 0
    assert "the run is saved after step 7; starting again" in told
    assert stand_in.signals() == ["SIGUSR1"]
    assert len(stand_in.starts()) == 2
    assert json.loads((stand_in.out / "state.json").read_text())["status"] == "done"


@pytest.mark.parametrize("status", ["running", "failed", "preempted"])
def test_a_failure_is_not_started_again(stand_in: StandIn, status: str) -> None:
    """Not even where an earlier start left a saved run: this one ended for another reason."""
    stand_in.out.mkdir()
    (stand_in.out / "state.json").write_text(json.dumps({"status": status, "step": 3}))
    stand_in.env["STAND_IN_CODE"] = "3"
    assert stand_in.run() == 3
    assert len(stand_in.starts()) == 1


SCONTROL = """
    import os, sys

    if sys.argv[1:3] == ["show", "job"]:
        print("JobId=42 JobName=x\\n   Command=" + os.environ["SCRIPT"] + " -- --config c\\n   WorkDir=/")
    elif sys.argv[1:3] == ["show", "hostnames"]:
        print("node3\\nnode4")
    else:
        open(os.environ["CALLS"], "a").write(" ".join(sys.argv[1:]) + "\\n")
"""
SRUN = """
    import os, sys

    open(os.environ["CALLS"], "a").write("srun " + " ".join(sys.argv[1:]) + "\\n")
    sys.exit(int(os.environ["CODE"]))
"""


@pytest.mark.parametrize(
    ("code", "status", "requeued"),
    [
        (75, "preempted", True),
        (75, "running", False),
        (1, "preempted", False),
        (1, "failed", False),
        (0, "done", False),
    ],
)
def test_a_slurm_job_goes_back_into_the_queue_only_when_its_run_is_saved(
    tmp_path: Path, code: int, status: str, requeued: bool
) -> None:
    program(tmp_path / "scontrol", SCONTROL)
    program(tmp_path / "srun", SRUN)
    copy = tmp_path / "slurm_script"  # Slurm runs a copy, without its neighbours
    shutil.copy(SCRIPTS / "slurm.sh", copy)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "state.json").write_text(json.dumps({"status": status, "step": 3}))
    env = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "CALLS": str(tmp_path / "calls"), "CODE": str(code)}
    env |= {"SCRIPT": str(SCRIPTS / "slurm.sh"), "SLURM_JOB_ID": "42"}
    env |= {"SLURM_JOB_NODELIST": "node[3-4]", "SLURM_JOB_NUM_NODES": "2"}
    command = ["bash", str(copy), "--procs", "2", "--", "--config", "c", "--out", "run"]
    done = subprocess.run(command, env={**os.environ, **env}, cwd=tmp_path, check=False, capture_output=True, text=True)
    assert done.returncode == (0 if requeued else code), done.stderr
    calls = (tmp_path / "calls").read_text().splitlines()
    launcher = f"{SCRIPTS / 'multi_node.sh'} --nodes 2 --head node3:20042 --procs 2 -- --config c --out run"
    assert calls[0].startswith("srun --nodes=2 --ntasks=2 --ntasks-per-node=1 ")
    assert calls[0].endswith(launcher)
    assert calls[1:] == (["requeue 42"] if requeued else [])


def test_a_slurm_job_is_signalled_in_time_and_may_be_requeued() -> None:
    """The options on which the rest depends; without B: the signal reaches the launchers, not the batch shell."""
    lines = (SCRIPTS / "slurm.sh").read_text().splitlines()
    options = {line.removeprefix("#SBATCH ") for line in lines if line.startswith("#SBATCH ")}
    assert {"--signal=TERM@300", "--requeue", "--open-mode=append", "--ntasks-per-node=1"} <= options


@pytest.mark.parametrize(("code", "requeued"), [(75, True), (1, False), (0, False)])
def test_a_task_of_a_slurm_array_runs_its_line_and_goes_back_once_saved(
    tmp_path: Path, code: int, requeued: bool
) -> None:
    program(tmp_path / "scontrol", SCONTROL)
    program(tmp_path / "srun", SRUN)
    lines = tmp_path / "runs.txt"
    lines.write_text("resnext train --config a\nresnext train --config b 'data.root=/a b'\n")
    env = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "CALLS": str(tmp_path / "calls"), "CODE": str(code)}
    env |= {"SLURM_JOB_ID": "43", "SLURM_ARRAY_TASK_ID": "2", "SCRIPT": ""}
    command = ["bash", str(SCRIPTS / "slurm_array.sh"), str(lines)]
    done = subprocess.run(command, env={**os.environ, **env}, check=False, capture_output=True, text=True)
    assert done.returncode == (0 if requeued else code), done.stderr
    calls = (tmp_path / "calls").read_text().splitlines()
    assert calls[0] == (
        "srun --nodes=1 --ntasks=1 --cpu-bind=none bash -c exec resnext train --config b 'data.root=/a b'"
    )
    assert calls[1:] == (["requeue 43"] if requeued else [])


def test_a_slurm_array_longer_than_the_sweep_is_refused(tmp_path: Path) -> None:
    (tmp_path / "runs.txt").write_text("resnext train --config a\n")
    env = {**os.environ, "SLURM_JOB_ID": "43", "SLURM_ARRAY_TASK_ID": "2"}
    command = ["bash", str(SCRIPTS / "slurm_array.sh"), str(tmp_path / "runs.txt")]
    done = subprocess.run(command, env=env, check=False, capture_output=True, text=True)
    assert (done.returncode, "--array=1-1" in done.stderr) == (2, True)
