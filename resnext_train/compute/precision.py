"""The number formats that a run computes in."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal

import torch

from resnext_train.errors import InputError

_TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Precision:
    """The type of autocast on a kind of device. Weights, BatchNorm statistics, classifier and loss stay in fp32."""

    name: Literal["fp32", "bf16", "fp16"]
    device_type: str

    def autocast(self) -> AbstractContextManager[object]:
        """Return the context of a forward pass."""
        if self.name == "fp32":
            return torch.autocast(self.device_type, enabled=False)
        return torch.autocast(self.device_type, dtype=_TYPES[self.name])

    def compute_dtype(self, weights: torch.dtype) -> torch.dtype:
        """Return the type that the network takes images in, which autocast would otherwise convert, with `weights`."""
        return weights if self.name == "fp32" else _TYPES[self.name]

    def scaler(self) -> torch.amp.GradScaler:
        """Return the loss scaler of fp16; for other types it does nothing."""
        return torch.amp.GradScaler(self.device_type, enabled=self.name == "fp16")


def resolve_precision(requested: Literal["auto", "fp32", "bf16", "fp16"], device: torch.device) -> Precision:
    """Return the precision of `train.precision` on this device.

    auto: bf16 where the device computes in it, else fp16 on CUDA and fp32 on a CPU.

    Raises:
        InputError: fp16 on a CPU, where it is emulated and unusably slow.
    """
    if requested == "fp16" and device.type == "cpu":
        raise InputError("train.precision=fp16 needs a GPU; use auto, bf16 or fp32 on a CPU")
    if requested != "auto":
        return Precision(requested, device.type)
    if device.type == "cuda":
        return Precision("bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16", device.type)
    return Precision("bf16" if _cpu_computes_bf16() else "fp32", device.type)


def _cpu_computes_bf16() -> bool:
    ask = getattr(torch.cpu, "get_capabilities", None)  # older torch cannot say: fp32
    return ask is not None and any(ask().get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))
