#!/usr/bin/env python3
"""Twenty steps of resnext50_32x4d on synthetic images on all GPUs of this host, through torchrun as a user would.

Prints images/s. Training itself compares the hash of the weights over all processes at its end and fails if they
differ. Exits 1 without a GPU.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

STEPS = 20


def main() -> int:
    """Run the check; the exit code is torchrun's."""
    gpus = torch.cuda.device_count()
    if gpus == 0:
        print("gpu_check: no CUDA device on this machine", file=sys.stderr)
        return 1
    per_gpu = 64
    with tempfile.TemporaryDirectory() as folder:
        command = [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={gpus}"),
            *("-m", "resnext_train", "train", "--config", "resnext50_32x4d.yaml", "--out", folder),
            *("data.source=synthetic", "data.classes=1000", f"data.train_images={gpus * per_gpu * STEPS}"),
            *("data.val_images=1000", f"train.batch_size={gpus * per_gpu}", f"train.max_steps={STEPS}"),
            *("log.every=5", "log.tensorboard=false"),
        ]
        code = subprocess.run(command, check=False).returncode
        if code:
            return code
        events = [json.loads(line) for line in (Path(folder) / "log.jsonl").read_text().splitlines()]
    steps = [e for e in events if e["event"] == "step"]
    print(f"{gpus} GPUs, weights equal on all ({events[-1]['weights_sha256'][:16]}...)")
    for event in steps:
        print(f"step {event['step']}: {event['images_per_s']:.0f} images/s, data-wait {100 * event['data_wait']:.1f} %")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
