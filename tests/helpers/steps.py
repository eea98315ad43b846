"""Steps of a small network on made-up images, for tests of the CPU and of the GPU."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
from torch import nn
from torch.optim import Optimizer

from resnext_train.compute.loss import TrainingLoss
from resnext_train.compute.precision import Precision
from resnext_train.config import ModelSection, OptimizerSection, SgdSection
from resnext_train.data.image_batch import ImageBatch
from resnext_train.data.sampler import shard_for_rank
from resnext_train.data.transforms.augmentation import DeviceTransforms
from resnext_train.data.transforms.color_transform import JITTER_FIELDS, ColorTransform
from resnext_train.data.transforms.erase import RandomErasing
from resnext_train.data.transforms.mix import Mixing
from resnext_train.distributed.dist_context import DistContext
from resnext_train.models.build_model import build_model
from resnext_train.training.compiled_network import NetworkOptions
from resnext_train.training.ema import WeightAverage
from resnext_train.training.optimizer import FiniteOptimizer, build_optimizer
from resnext_train.training.train_step import ForwardPass, TrainStep

MICRO_BATCHES = 5
NORMALISE = ColorTransform(0.4, 0.4, 0.4, 0.1, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
NETWORK = ModelSection(arch="resnext14_2x4d")


def train_step(
    model: nn.Module,
    optimizer: Optimizer,
    context: DistContext,
    *,
    micro_batches: int = MICRO_BATCHES,
    colors: ColorTransform = NORMALISE,
    precision: Literal["fp32", "bf16", "fp16"] = "fp32",
    loss: TrainingLoss = TrainingLoss(),  # noqa: B008 (frozen)
    clip_norm: float | None = None,
    seed: int = 0,
    options: NetworkOptions = NetworkOptions(),  # noqa: B008 (frozen)
    erasing: RandomErasing = RandomErasing(),  # noqa: B008 (frozen)
    mixing: Mixing | None = None,
    average: WeightAverage | None = None,
) -> TrainStep:
    """The step of a run, for a network that the test throws away: its BatchNorm modules are not given back."""
    number_format = Precision(precision, context.device.type)
    forward = ForwardPass(model, DeviceTransforms(colors, erasing, mixing), number_format, loss, context, options)
    finite_optimizer = FiniteOptimizer(model, optimizer, number_format.scaler(), clip_norm)
    step = TrainStep(forward, finite_optimizer, context, micro_batches, seed, average)
    step.statistics.__enter__()
    return step


def step_images(size: int, step: int) -> list[ImageBatch]:
    """The micro-batches of a step of `size` images."""
    g = torch.Generator().manual_seed(100 + step)
    images = torch.randint(0, 256, (size, 3, 32, 32), generator=g, dtype=torch.uint8)
    labels = torch.randint(0, 4, (size,), generator=g)
    jitter = np.zeros((size, JITTER_FIELDS))
    jitter[:, :3] = 2, 0, 1
    jitter[:, 3:6] = torch.rand(size, 3, generator=g).numpy() + 0.5
    maps = torch.from_numpy(NORMALISE.maps(jitter))
    sizes = [size // MICRO_BATCHES + (i < size % MICRO_BATCHES) for i in range(MICRO_BATCHES)]
    parts = zip(images.split(sizes), labels.split(sizes), maps.split(sizes), strict=True)
    return [ImageBatch(*p) for p in parts]


def take_steps(
    context: DistContext,
    dtype: torch.dtype,
    sizes: list[int],
    optimizer: OptimizerSection = SgdSection(lr=0.05),  # noqa: B008 (frozen)
    mixing: Mixing | None = None,
    everything: bool = False,
) -> dict[str, Any]:
    """Steps of the given sizes; the last gradient, all weights, buffers and momenta, and the summed loss.

    With `everything` also by random erasing, stochastic depth and BCE, and with an average of the weights.
    """
    network = NETWORK.model_copy(update={"stochastic_depth": 0.3}) if everything else NETWORK
    model = build_model(network, 4, seed=1).to(dtype).to(memory_format=torch.channels_last)
    built = build_optimizer(optimizer, model)
    average = WeightAverage(model, 0.8, every=2) if everything else None
    erasing = RandomErasing(0.5, "pixel", count=2) if everything else RandomErasing()
    loss = TrainingLoss(0.1, kind="bce" if everything else "cross_entropy")
    step = train_step(model, built, context, loss=loss, mixing=mixing, erasing=erasing, average=average)
    for n, size in enumerate(sizes):
        micro_batches = [_with_boxes(batch, erasing, n) for batch in step_images(size, n)]
        step(
            iter([micro_batches[i] for i in shard_for_rank(MICRO_BATCHES, context.world_size, context.rank)]),
            n,
            size,
            lr=0.05,
        )
    step.read_metrics()
    return {
        "gradients": {k: p.grad for k, p in model.named_parameters()},
        "state": model.state_dict(),
        "momentum": [t for state in built.state.values() for t in state.values()],
        "average": average.tensors() if average else [],
        "loss": torch.tensor(step.meter.epoch.loss, dtype=torch.float64),
        "correct": torch.tensor(step.meter.epoch.correct),
    }


def _with_boxes(batch: ImageBatch, erasing: RandomErasing, step: int) -> ImageBatch:
    return batch._replace(erase_boxes=erasing.draw_boxes(0, step, np.arange(len(batch.labels)), None, 32))
