"""Step times of the three forms of the ResNeXt block, in turns: forward, backward and update of one batch.

usage: python scripts/bench_forms.py [--arch resnext50_32x4d] [--batch 8] [--size 224] [--rounds 5]
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from resnext_train.config import ModelSection
from resnext_train.models.architecture import Form
from resnext_train.models.build_model import build_model

FORMS: tuple[Form, ...] = ("a", "b", "c")


def take_step(model: nn.Module, optimizer: torch.optim.Optimizer, images: Tensor, labels: Tensor) -> float:
    """Seconds of one step."""
    started = time.perf_counter()
    optimizer.zero_grad(set_to_none=True)
    F.cross_entropy(model(images), labels).backward()
    optimizer.step()
    if images.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - started


def main() -> None:
    """Measure and print; the first round warms up and does not count."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--arch", default="resnext50_32x4d")
    p.add_argument("--batch", type=int, default=8)
    p.add_argument("--size", type=int, default=224)
    p.add_argument("--rounds", type=int, default=5)
    args = p.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    images = torch.randn(args.batch, 3, args.size, args.size, device=device).to(memory_format=torch.channels_last)
    labels = torch.arange(args.batch, device=device)
    seconds: dict[Form, list[float]] = {form: [] for form in FORMS}
    runs = {}
    for form in FORMS:
        model = build_model(ModelSection(arch=args.arch, form=form), 1000)
        model.to(device).to(memory_format=torch.channels_last)
        runs[form] = model, torch.optim.SGD(model.parameters(), 0.01, 0.9)
    for number in range(args.rounds + 1):
        for form in FORMS:
            taken = take_step(*runs[form], images, labels)
            if number:
                seconds[form].append(taken)
    fastest = statistics.median(seconds["c"])
    print(f"{args.arch}, {args.batch} images of {args.size} × {args.size}, {device.type}, fp32, channels last")
    for form, times in seconds.items():
        median = statistics.median(times)
        print(f"form {form}: {median:.3f} s ({min(times):.3f} to {max(times):.3f}), {median / fastest:.2f} × form c")


if __name__ == "__main__":
    main()
