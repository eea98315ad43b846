"""Stage A: what this host is, and how fast its links are. As a command: describe the host as a line of JSON."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
import warnings
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
import torch.distributed as dist

from resnext_train.distributed.dist_context import DistContext
from resnext_train.distributed.usable_cores import usable_cores
from resnext_train.run_dir.environment import environment
from scripts.gpu_check.ranks import run_ranks
from scripts.gpu_check.report import Host, Report

_BYTES = 100_000_000
_ROUNDS = 7


def describe() -> dict[str, Any]:
    """Return GPU, driver, versions, topology and commit of this host."""
    no_gpu = _why_no_gpu()
    gpus = 0 if no_gpu else torch.cuda.device_count()
    names = sorted({torch.cuda.get_device_name(i) for i in range(gpus)})
    about = environment()
    return {
        "gpu": f"{gpus} × {' and '.join(names)}" if gpus else None,
        "gpus": gpus,
        "no_gpu": no_gpu,
        "gpu_memory_bytes": torch.cuda.get_device_properties(0).total_memory if gpus else None,
        "capability": list(torch.cuda.get_device_capability(0)) if gpus else None,
        "driver": _smi("--query-gpu=driver_version", "--format=csv,noheader", "--id=0") if gpus else None,
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version() if gpus else None,
        "nccl": ".".join(map(str, torch.cuda.nccl.version())) if gpus else None,  # type: ignore[no-untyped-call]
        "topology": _smi("topo", "-m") if gpus else None,
        "cores": usable_cores(),
        "commit": about["git_commit"],
        "versions": about["versions"],
        "host": about["host"],
    }


def _why_no_gpu() -> str | None:
    """Return why torch sees no GPU: in the words of its warning, if it has any, as where the driver is too old."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        if torch.cuda.is_available():
            return None
    if torch.version.cuda is None:
        return "this torch is built without CUDA"
    words = [str(warning.message).strip().splitlines()[0] for warning in told if str(warning.message).strip()]
    return f"torch sees no GPU on this host{f' ({words[0]})' if words else ''}"


def _smi(*arguments: str) -> str | None:
    """Return what nvidia-smi prints; None where it is missing or fails, as in some containers."""
    if shutil.which("nvidia-smi") is None:
        return None
    try:
        done = subprocess.run(["nvidia-smi", *arguments], capture_output=True, text=True, check=False, timeout=20)
    except subprocess.TimeoutExpired:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def measure_links(host: Host, report: Report) -> None:
    """Record how fast batches reach a GPU, and how fast gradients reach other ranks. Nothing is judged."""
    report.record(**{name: value for name, value in describe().items() if name in ("gpu", "driver", "torch", "cores")})
    if host.device == "cuda":
        for name, pinned in (("pinned", True), ("pageable", False)):
            source = torch.empty(_BYTES, dtype=torch.uint8, pin_memory=pinned)
            target = torch.empty(_BYTES, dtype=torch.uint8, device="cuda")
            seconds = _seconds(lambda source=source, target=target: target.copy_(source, non_blocking=True))  # type: ignore[misc]
            report.record(**{f"copy_{name}_bytes_per_s": _BYTES / seconds})
    else:
        report.leave_out("copies to a GPU (there is none)")
    if host.ranks == 1:
        report.leave_out("all-reduce (one GPU)")
        return
    seconds = max(run_ranks(_all_reduce, host.ranks, host))
    # Bytes that each rank sends in a ring, per second: the bus bandwidth of NCCL's own tests.
    sent = 2 * (host.ranks - 1) / host.ranks * _BYTES
    report.record(ranks=host.ranks, all_reduce_100_mb_seconds=seconds, all_reduce_bytes_per_s=sent / seconds)


def _all_reduce(context: DistContext) -> float:
    tensor = torch.zeros(_BYTES // 4, device=context.device)
    return _seconds(lambda: dist.all_reduce(tensor))


def _seconds(work: Callable[[], object]) -> float:
    """Return the median time of `work`, waiting for the device."""
    times = []
    for _ in range(_ROUNDS + 1):  # the first connects and allocates
        _wait()
        began = time.perf_counter()
        work()
        _wait()
        times.append(time.perf_counter() - began)
    return median(times[1:])


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


if __name__ == "__main__":
    print(json.dumps(describe()))
