"""What torch's GPU libraries may choose by themselves: number formats and algorithms. No other module sets it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from resnext_train.errors import InputError, LocalInputError


def prepare_gpu_libraries() -> None:
    """Refuse TF32, and let cuDNN time its algorithms for each shape, unless they are to be deterministic."""
    refuse_tf32()
    # Sizes are the same in all steps but an epoch's last.
    torch.backends.cudnn.benchmark = not torch.are_deterministic_algorithms_enabled()


def refuse_tf32() -> None:
    """Let GPUs compute fp32 convolutions and matrix products in fp32; bf16 and fp16 are not affected.

    From here on torch raises where the older `allow_tf32` of cuDNN, or `torch.backends.cudnn.flags`, is read. Each
    kind of operation is set by itself: what torch 2.10 and 2.14 do with the setting of all of cuDNN differs.
    """
    torch.backends.cudnn.conv.fp32_precision = "ieee"  # type: ignore[attr-defined]
    torch.backends.cuda.matmul.fp32_precision = "ieee"


@contextmanager
def fixed_algorithms() -> Iterator[None]:
    """Let cuDNN choose by the shape alone, and deterministically, while inside; put its settings back after.

    Timing, which `prepare_gpu_libraries` allows, may choose another algorithm on another process or day.
    """
    cudnn = torch.backends.cudnn
    before = cudnn.benchmark, cudnn.deterministic
    cudnn.benchmark, cudnn.deterministic = False, True
    try:
        yield
    finally:
        cudnn.benchmark, cudnn.deterministic = before


_DETERMINISTIC = {"CUBLAS_WORKSPACE_CONFIG": (":4096:8", ":16:8"), "TORCHINDUCTOR_DETERMINISTIC": ("1",)}
"""Environment variables that cuBLAS and torch.compile read when they start, and their deterministic values."""


@contextmanager
def deterministic_algorithms(wanted: bool) -> Iterator[None]:
    """If `wanted`, let torch take only algorithms that give the same bits each time, while inside.

    Enter it before the first matrix product on a GPU, where cuBLAS reads the environment. Torch raises RuntimeError for
    an operation that has none, see `torch_refusals_explained`.
    """
    if not wanted:
        yield
        return
    cudnn, variables = torch.backends.cudnn, {name: os.environ.get(name) for name in _DETERMINISTIC}
    flags = cudnn.benchmark, cudnn.deterministic
    mode = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    os.environ |= {name: good[0] for name, good in _DETERMINISTIC.items() if variables[name] not in good}
    try:
        cudnn.benchmark, cudnn.deterministic = False, True
        torch.use_deterministic_algorithms(True)
        yield
    finally:
        torch.use_deterministic_algorithms(mode[0], warn_only=mode[1])
        cudnn.benchmark, cudnn.deterministic = flags
        for name, value in variables.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


_NO_FORM = re.compile(r"(\S+) does not have a deterministic implementation")
_NO_COMPILER = re.compile(r"No working C\+\+ compiler|Failed to find C compiler|Cannot find a working triton")
"""What torch.compile and Triton say on a host that lacks what they need."""


@contextmanager
def torch_refusals_explained() -> Iterator[None]:
    """Return a context in which torch's error for what a recipe asks of it, and it cannot do here, is an InputError.

    Raises:
        InputError: the network needs an operation that has no deterministic form.
        LocalInputError: this host lacks a compiler.
    """
    try:
        yield
    except RuntimeError as error:
        if found := _NO_FORM.search(str(error)):
            raise InputError(
                f"train.deterministic=true: the network needs {found[1]}, which has no deterministic form on this "
                "device; set train.deterministic=false, or choose another model.arch"
            ) from error
        if found := _NO_COMPILER.search(str(error)):
            raise LocalInputError(  # other hosts may have one
                f"train.compile: torch.compile lacks what it needs on this host ({found[0]}); install a C++ compiler, "
                "and Triton for GPUs, or set train.compile=off"
            ) from error
        raise


def choices(device: torch.device) -> dict[str, Any]:
    """Return what the libraries of `device` may choose, for the start event."""
    allowed: dict[str, Any] = {"deterministic": torch.are_deterministic_algorithms_enabled()}
    if device.type == "cuda":
        precisions = (torch.backends.cudnn.conv.fp32_precision, torch.backends.cuda.matmul.fp32_precision)  # type: ignore[attr-defined]
        allowed |= {"tf32": "tf32" in precisions, "cudnn_benchmark": torch.backends.cudnn.benchmark}
    return allowed
