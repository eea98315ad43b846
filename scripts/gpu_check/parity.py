"""Stage B: steps on this device are those of the CPU.

Two things would hide an error in fp32 and below, and are kept away. Rounding moves a few activations over the kink of
ReLU, one in a million in fp32, and each such flip changes the gradient as much as any other activation: together by a
thousandth. So the BatchNorm layers start with a scale of 0.4 and a shift of 1, where few activations are near zero; and
of three networks the median counts. And the gradients of some vectors almost cancel: the error of a tensor counts
against its norm, or where that is smaller against a tenth of what it would be if all gradients were alike.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median

import torch
from torch import Tensor
from torch.nn import functional as F

from resnext_train.distributed.dist_context import DistContext
from resnext_train.distributed.rank import Rank
from scripts.gpu_check.ranks import alone
from scripts.gpu_check.report import Host, Report
from scripts.gpu_check.small_run import SmallRun, small_recipe

STEPS = 3
SEEDS = (0, 1, 2)
_BATCH = ("train.batch_size=32", "train.micro_batch=16", "data.train_images=96")
_SMALL_PART = 0.1

State = dict[str, Tensor]


def take_steps(
    context: DistContext, precision: str, dtype: torch.dtype, seeds: Sequence[int] = SEEDS
) -> list[list[State]]:
    """Return all tensors after each step and the mean loss so far, by seed."""
    return [_take_steps(context, precision, dtype, seed) for seed in seeds]


def _take_steps(context: DistContext, precision: str, dtype: torch.dtype, seed: int) -> list[State]:
    run = SmallRun(context, small_recipe(*_BATCH, f"train.precision={precision}", f"train.seed={seed}"), dtype)
    with torch.no_grad():
        for module in run.step.model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.weight.fill_(0.4)
                module.bias.fill_(1.0)
    micro_batches = iter(run.loader(STEPS))
    states = []
    for number in range(STEPS):
        run.take(micro_batches, number)
        states.append({**run.tensors(), "loss": torch.tensor([run.mean_loss()], dtype=torch.float64)})
    return states


def compare_with_cpu(host: Host, report: Report) -> None:
    """Compare gradients, buffers, momentum, weights and loss of three steps with those of the CPU."""
    cpu = DistContext(Rank(), torch.device("cpu"))
    seeds = SEEDS if host.device == "cuda" else SEEDS[:1]
    if host.device == "cpu":
        report.leave_out("another device than the CPU (it is compared with itself), and of the networks all but one")
    exact, plain = (take_steps(cpu, "fp32", dtype, seeds) for dtype in (torch.float64, torch.float32))
    fp64 = alone(take_steps, host, "fp32", torch.float64, seeds)
    fp32 = alone(take_steps, host, "fp32", torch.float32, seeds)
    report.at_most("fp64_error_after_1_step", max(_errors(fp64, exact, 0)), 1e-9)
    # Later steps have momentum, Nesterov's look ahead, weight decay and running statistics in them.
    report.at_most("fp64_error_after_3_steps", max(_errors(fp64, exact, -1)), 1e-8)
    report.record(fp32_error_by_seed=_errors(fp32, exact, 0))
    report.at_most("fp32_error_after_1_step", median(_errors(fp32, exact, 0)), 1e-4)
    report.at_most("fp32_error_after_3_steps", median(_errors(fp32, exact, -1)), 1e-3)
    report.at_most("fp32_error_to_fp32_on_the_cpu", median(_errors(fp32, plain, 0)), 1e-4)
    report.record(loss=[states[-1]["loss"].item() for states in exact])
    for precision in _half_precisions(host, report):
        states = alone(take_steps, host, precision, torch.float32, seeds)
        worst = [_least_cosine(own[0], other[0]) for own, other in zip(states, exact, strict=True)]
        report.record(**{f"{precision}_least_cosines": [[name, value] for name, value in worst]})
        report.at_least(f"{precision}_least_cosine_after_1_step", median(value for _, value in worst), 0.99)
        report.record(**{f"{precision}_loss": [own[-1]["loss"].item() for own in states]})


def _half_precisions(host: Host, report: Report) -> list[str]:
    if host.device == "cuda":
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return ["bf16", "fp16"]
        report.leave_out("bf16 (this GPU does not compute in it)")
        return ["fp16"]
    report.leave_out("fp16 (it needs a GPU)")
    return ["bf16"]


def _errors(states: list[list[State]], exact: list[list[State]], step: int) -> list[float]:
    """Return the largest error of a tensor after `step`, by seed."""
    return [
        max(relative_error(own[step][name], t, tensor_scale(other[step], name)) for name, t in other[step].items())
        for own, other in zip(states, exact, strict=True)
    ]


def tensor_scale(state: State, name: str) -> float:
    """Return the root mean square that a tensor's error is at least compared with; 0 for what is no gradient."""
    kind = name.split(" ")[0]
    if kind not in ("gradient", "momentum"):
        return 0.0
    alike = [t.double() for other, t in state.items() if other.startswith(f"{kind} ")]
    squares = sum(float(t.square().sum()) for t in alike)
    return _SMALL_PART * math.sqrt(squares / sum(t.numel() for t in alike))


def relative_error(tensor: Tensor, exact: Tensor, scale: float = 0.0) -> float:
    """Return the L2 norm of the difference over that of `exact`, which counts as one of RMS `scale` at least.

    NaN and infinity give infinity.
    """
    exact, tensor = exact.double(), tensor.double()
    norm = max(exact.norm().item(), scale * exact.numel() ** 0.5, 1e-30)
    error = float((tensor - exact).norm().item()) / norm
    return error if error < float("inf") else float("inf")


def _least_cosine(state: State, exact: State) -> tuple[str, float]:
    """Return the tensor whose direction is furthest from the exact one's, and the cosine; almost cancelled ones not."""
    cosines = {
        name: cosine(state[name], t)
        for name, t in exact.items()
        if t.numel() > 1 and t.double().norm().item() > tensor_scale(exact, name) * t.numel() ** 0.5
    }
    name = min(cosines, key=lambda key: cosines[key])
    return name, cosines[name]


def cosine(tensor: Tensor, exact: Tensor) -> float:
    """Return the cosine of the angle between two tensors; -1 where one is not finite."""
    value = float(F.cosine_similarity(tensor.double().flatten(), exact.double().flatten(), dim=0, eps=1e-30).item())
    return value if value == value else -1.0
