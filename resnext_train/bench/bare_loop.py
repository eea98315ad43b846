"""A bare training loop to compare with: torch's own parts, and nothing that a training run needs beside them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from resnext_train.compute.precision import Precision
from resnext_train.compute.step_parts import part
from resnext_train.data.image_batch import ImageBatch
from resnext_train.distributed.dist_context import DistContext


class BareLoop:
    """Steps of `model` over the same micro-batches in the same precision as a run's, as a short script takes them.

    It normalises uint8 images and does not change their colours, averages gradients by the stock
    DistributedDataParallel, keeps torch's own BatchNorm statistics, and neither skips, measures nor checks anything.
    """

    def __init__(self, model: nn.Module, optimizer: Optimizer, precision: Precision, context: DistContext) -> None:
        self.model, self.optimizer = model, optimizer
        self._precision, self._scaler = precision, precision.scaler()
        several, devices = context.world_size > 1, [context.device] if context.device.type == "cuda" else None
        self._network = DistributedDataParallel(model, devices, gradient_as_bucket_view=True) if several else model
        self._mean = torch.tensor([123.7, 116.3, 103.5], device=context.device).view(3, 1, 1)
        self._std = torch.tensor([58.4, 57.1, 57.4], device=context.device).view(3, 1, 1)

    def __call__(self, micro_batches: Sequence[ImageBatch]) -> None:
        """Take one step over micro-batches on the device."""
        self.optimizer.zero_grad(set_to_none=True)
        for number, batch in enumerate(micro_batches, 1):
            waits = isinstance(self._network, DistributedDataParallel) and number < len(micro_batches)
            with self._network.no_sync() if waits else nullcontext():  # type: ignore[operator]
                with part("color"):
                    pixels = batch.images.float().sub_(self._mean).div_(self._std)
                with part("forward"), self._precision.autocast():
                    outputs = self._network(pixels)
                with part("loss"):
                    logits = outputs if isinstance(outputs, torch.Tensor) else outputs[0]
                    loss = F.cross_entropy(logits.float(), batch.labels) / len(micro_batches)
                with part("backward"):
                    self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        with part("optimizer"):
            self._scaler.step(self.optimizer)
            self._scaler.update()
