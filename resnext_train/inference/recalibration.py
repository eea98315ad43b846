"""Take the BatchNorm statistics of a trained network anew, from training images."""

from __future__ import annotations

from itertools import islice

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from resnext_train.compute.backend import fixed_algorithms
from resnext_train.compute.precision import Precision
from resnext_train.config import Recipe
from resnext_train.data.build_loaders import Report, build_color_transform, build_train_loader
from resnext_train.data.sampler import StepPlan, shard_for_rank
from resnext_train.data.sources.image_source import ImageSource
from resnext_train.distributed.dist_context import DistContext
from resnext_train.errors import InputError


def recalibrate(
    model: nn.Module,
    recipe: Recipe,
    source: ImageSource,
    images: int,
    precision: Precision,
    context: DistContext,
    report: Report,
) -> int:
    """Replace running means and variances by their averages over micro-batches; return the number of images taken.

    The micro-batches are those of the recipe's first steps: as many as hold `images` images, all of an epoch at most.
    They are augmented as in training, at the size of its last epochs, but without repetitions, erased boxes and mixing.
    Each of them counts the same (arXiv 2105.07576, section 3.1). The result does not depend on the number of ranks.

    Raises:
        InputError: the network has no BN, or the images cannot be read.
    """
    layers = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    if not layers:
        raise InputError("--recalibrate-bn: the network has no BatchNorm statistics")
    recipe = recipe.at_full_size()
    train = recipe.train
    plan = StepPlan(len(source), train.batch_size, train.micro_batches, train.last_batch)
    steps = range(min(-(-images // plan.batch_size), plan.steps_per_epoch))
    loader = build_train_loader(recipe, source, plan, context, steps, report)
    normalise, dtype = build_color_transform(recipe), precision.compute_dtype(torch.float32)
    momenta = [layer.momentum for layer in layers]
    shard = len(shard_for_rank(plan.micro_batches, context.world_size, context.rank))
    total, added = None, 0
    model.eval()
    try:
        for layer in layers:
            layer.train()
            layer.momentum = 1.0  # the running statistics become those of the batch
        with fixed_algorithms(), torch.no_grad():
            batches = iter(loader)
            for _ in steps:
                own: list[torch.Tensor] = []
                for batch in islice(batches, shard):
                    pixels = normalise(batch.images, batch.color_maps, dtype)
                    with precision.autocast():
                        model(pixels)
                    own.append(torch.cat([t.flatten() for t in _statistics(layers)]).cpu())
                # In the order of micro-batches, step by step: the same sum on any number of ranks, in constant memory.
                for statistics in (one for of_rank in context.gather(own) for one in of_rank):
                    total = statistics.double() if total is None else total.add_(statistics)
                    added += 1
    finally:
        loader.close()
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
        model.eval()
    assert total is not None, "there is a step"
    sizes = [statistic.numel() for statistic in _statistics(layers)]
    for statistic, values in zip(_statistics(layers), (total / added).split(sizes), strict=True):
        statistic.copy_(values)
    return sum(plan.step_size(step) for step in steps)


def _statistics(layers: list[_BatchNorm]) -> list[torch.Tensor]:
    return [s for layer in layers for s in (layer.running_mean, layer.running_var) if s is not None]
