"""A small run as the package builds it, whose steps are taken one by one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from resnext_train.config import Recipe, load_recipe
from resnext_train.data.build_loaders import build_train_loader
from resnext_train.data.device_loader import DeviceLoader
from resnext_train.data.image_batch import ImageBatch
from resnext_train.distributed.dist_context import DistContext
from resnext_train.models.build_model import build_model
from resnext_train.training.build_step import build_train_step
from resnext_train.training.setup import set_up

SMALL = (
    *("model.arch=resnext14_8x4d", "model.width=0.5", "data.source=synthetic", "data.size=72", "data.classes=10"),
    *("data.workers=0", "augment.size=64", "eval.resize=72", "eval.crop=64", "train.precision=fp32"),
    *("optimizer.lr=0.05", "schedule.warmup=0", "log.to=[]"),
)
"""Overrides of the recipe smoke: a network of 14 layers that takes steps of tens of images in a moment."""

LR = 0.05


def small_recipe(*overrides: str) -> Recipe:
    """Return the small recipe with further overrides."""
    return load_recipe("smoke", [*SMALL, *overrides])


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """Let networks be built in `dtype`."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


class SmallRun:
    """The step of a recipe on this rank, and the micro-batches that its loader makes.

    The first weights are the same on every device and in every `dtype`.
    """

    def __init__(self, context: DistContext, recipe: Recipe, dtype: torch.dtype = torch.float32) -> None:
        self.context = context
        with default_dtype(dtype):
            self.setup = set_up(recipe, context)
            self.step = build_train_step(self.setup, fine_tune=False)
        first = build_model(recipe.model, self.setup.num_classes, recipe.train.seed)
        self.step.model.load_state_dict(first.state_dict())
        if self.step.optimizer.scaler.is_enabled():  # the usual 65536 overflows in the first steps of some networks
            state = self.step.optimizer.scaler.state_dict()
            self.step.optimizer.scaler.load_state_dict({**state, "scale": 1024.0})
        self.step.statistics.__enter__()

    def loader(self, steps: int) -> DeviceLoader[ImageBatch]:
        """Return the loader of the first `steps` steps, on this rank's device."""
        setup = self.setup
        return build_train_loader(setup.recipe, setup.splits.train, setup.plan, self.context, range(steps), print)

    def take(self, micro_batches: Iterator[ImageBatch], number: int) -> None:
        """Take step `number`."""
        self.step(micro_batches, number, self.setup.plan.step_size(number), LR)

    def tensors(self) -> dict[str, Tensor]:
        """Return copies of all weights, buffers, gradients and the optimizer's state, on the CPU."""
        model, optimizer = self.step.model, self.step.optimizer
        gradients = {f"gradient {name}": p.grad for name, p in model.named_parameters() if p.grad is not None}
        held = optimizer.optimizer.state
        momentum = {f"momentum {name}": held[p]["momentum_buffer"] for name, p in model.named_parameters()}
        return {k: t.detach().cpu().clone() for k, t in {**model.state_dict(), **gradients, **momentum}.items()}

    def kept(self) -> dict[str, Tensor]:
        """Return what a skipped step leaves as it is: weights, buffers and momentum."""
        return {name: tensor for name, tensor in self.tensors().items() if not name.startswith("gradient ")}

    def mean_loss(self) -> float:
        """Return the mean loss of all steps so far that were finite. All ranks call this."""
        self.step.read_metrics()
        loss = self.step.meter.epoch.mean_loss
        return float("nan") if loss is None else loss
