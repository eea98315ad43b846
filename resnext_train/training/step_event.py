"""What a step's line of the log says: loss, speed and memory."""

from __future__ import annotations

import resource
import sys
from typing import Any

import torch

from resnext_train.models.complexity import measure
from resnext_train.training.setup import Setup
from resnext_train.training.throughput import Lap
from resnext_train.training.train_metrics import Totals
from resnext_train.training.train_step import TrainStep

_FLOPS_PER_MULTIPLY_ADD = 2 * 3
"""A multiplication and an addition, in the forward pass and twice in the backward pass: for inputs and for weights."""


class StepEvents:
    """Makes the step events of a run, on rank 0."""

    def __init__(self, setup: Setup, train_step: TrainStep) -> None:
        self._setup, self._train_step = setup, train_step
        # Not at the first log line, in the midst of training.
        self._flops_per_image = _flops_per_image(setup) if setup.context.is_main else {}

    def event(self, step: int, lr: float, window: Totals, lap: Lap) -> dict[str, Any]:
        """Return the event of finished step `step`, with the mean over `window` and the speed of `lap`.

        `flops_per_s` is the part of that speed that the network has use for: images/s times 6 times its multiply-adds
        at the size of the epoch's crops (see `measure`), of all ranks together; `flops_per_s_each` is that of one.
        `memory_mb` is this rank's peak so far in 10^6 bytes: on a GPU what its tensors took, on a CPU the process's
        resident memory. `loss_scale` is there where the loss is scaled; reading it waits for the device.
        """
        setup, rate = self._setup, lap.images / lap.seconds
        epoch = setup.epoch_of(step - 1)
        scale = self._train_step.loss_scale()
        flops = rate * self._flops_per_image[setup.recipe.augment.size_in(epoch - 1)]
        return {
            "step": step,
            "epoch": epoch,
            "loss": window.mean_loss,
            "lr": lr,
            "top1": window.top1,
            "images_per_s": rate,
            "data_wait": lap.waited / lap.seconds,
            "memory_mb": peak_memory(setup.context.device) / 1e6,
            "flops_per_s": flops,
            "flops_per_s_each": flops / setup.context.world_size,
            **({} if scale is None else {"loss_scale": scale}),
        }


def _flops_per_image(setup: Setup) -> dict[int, int]:
    """Return the operations for an image by the size of the crop, for all sizes of the run."""
    recipe = setup.recipe
    return {
        size: _FLOPS_PER_MULTIPLY_ADD * measure(recipe.model, setup.num_classes, size).multiply_adds
        for size in setup.crop_sizes
    }


def peak_memory(device: torch.device) -> int:
    """Return the most bytes that this process has held at once: in tensors on a GPU, in memory on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak
