"""Check the GPU path on this host: the GPU tests, then twenty steps of resnext50_32x4d on all GPUs.

usage, from the root of a checkout: python -m scripts.gpu_check

Needs no installation of this package and no virtual environment: only torch, torchvision and the libraries that
training imports, installed or on PYTHONPATH. Training itself compares the weights of all ranks and fails if they
differ. Exits 1 if anything fails, or without a GPU; says so where pytest is missing and the tests are skipped.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
STEPS, PER_GPU = 20, 64
LIBRARIES = ("torch", "torchvision", "numpy", "PIL", "pydantic", "yaml", "tqdm", "safetensors")


def main() -> int:
    """Run both parts; the exit code is 0 only if every part that ran passed."""
    if missing := [name for name in LIBRARIES if find_spec(name) is None]:
        print(f"gpu_check: missing {', '.join(missing)}; install them or put them on PYTHONPATH", file=sys.stderr)
        return 1
    import torch

    gpus = torch.cuda.device_count()
    if gpus == 0:
        print("gpu_check: no CUDA device on this machine", file=sys.stderr)
        return 1
    passed = True
    if find_spec("pytest"):
        passed = _run("-m", "pytest", "-m", "gpu", *map(str, sorted(ROOT.glob("tests/unit/**/test_gpu_*.py")))) == 0
    else:
        print("gpu_check: GPU tests skipped, pytest is not installed", file=sys.stderr)
    with tempfile.TemporaryDirectory() as folder:
        trained = _train(gpus, Path(folder)) == 0
        if trained:
            _report(gpus, Path(folder))
    return 0 if passed and trained else 1


def _run(*arguments: str) -> int:
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    return subprocess.run(
        [sys.executable, *arguments], check=False, cwd=ROOT, env={**os.environ, "PYTHONPATH": path}
    ).returncode


def _train(gpus: int, folder: Path) -> int:
    return _run(
        *("-m", "resnext_train", "train", "--procs", str(gpus)),
        *("--config", "resnext50_32x4d.yaml", "--out", str(folder)),
        *("data.source=synthetic", "data.classes=1000", f"data.train_images={gpus * PER_GPU * STEPS}"),
        *("data.val_images=1000", f"train.batch_size={gpus * PER_GPU}", f"train.max_steps={STEPS}"),
        *("log.every=5", "log.tensorboard=false"),
    )


def _report(gpus: int, folder: Path) -> None:
    events = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    print(f"{gpus} GPUs, weights equal on all ({events[-1]['weights_sha256'][:16]}...)")
    for event in (e for e in events if e["event"] == "step"):
        print(f"step {event['step']}: {event['images_per_s']:.0f} images/s, data-wait {100 * event['data_wait']:.1f} %")


if __name__ == "__main__":
    raise SystemExit(main())
