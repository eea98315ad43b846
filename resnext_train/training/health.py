"""Checks of a run's health: skipped steps, and equal weights on all ranks."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from resnext_train.config import Recipe
from resnext_train.distributed.dist_context import DistContext
from resnext_train.errors import FaultError
from resnext_train.run_dir.run_logger import RunLogger
from resnext_train.training.flat_tensors import in_order_of_memory
from resnext_train.training.lr_schedule import Schedule
from resnext_train.training.setup import Setup
from resnext_train.training.train_metrics import Skipped
from resnext_train.training.train_step import TrainStep


def log_skipped(train_step: TrainStep, schedule: Schedule, setup: Setup, log: RunLogger, step: int) -> None:
    """Wait for the device and log the steps skipped since the last call; `step` is the last step.

    Where fp16's gradients overflowed because their scale was still too large, that is an event `scale`, and no fault.

    Raises:
        FaultError: too many in a row were skipped.
    """
    faults = train_step.read_metrics()
    if overflows := train_step.watch.overflows:
        log.write("scale", step=step, loss_scale=train_step.loss_scale(), skipped=[n + 1 for n in overflows])
    for skipped in faults:
        lr = schedule.lr(skipped.step)
        log.write("skipped", **skipped_event(skipped, setup, lr))
        check_skipped(skipped, setup.recipe, lr, step)


def skipped_event(skipped: Skipped, setup: Setup, lr: float) -> dict[str, Any]:
    """Return the event of a skipped step, with the images of the micro-batches at fault, or of all."""
    plan = setup.plan
    order = plan.order(setup.recipe.train.seed, skipped.step // plan.steps_per_epoch)
    micro_batches = plan.micro_batches_of(skipped.step, order)
    numbers = skipped.micro_batches or range(plan.micro_batches)
    images = [image for number in numbers for image in micro_batches[number].images.tolist()]
    at_fault = len(skipped.micro_batches)
    what = f"the loss of {at_fault} of {plan.micro_batches} micro-batches" if at_fault else "the gradient"
    names = ", ".join(setup.splits.train.name(i) for i in images[:2])
    text = f"step {skipped.step + 1} was skipped: {what} is not finite (learning rate {lr:g}; images {names}, ...)"
    return {"step": skipped.step + 1, "lr": lr, "groups": skipped.micro_batches, "images": images, "text": text}


def check_skipped(skipped: Skipped, recipe: Recipe, lr: float, step: int) -> None:
    """End a run, after `step` steps, where more than `train.max_skipped` steps in a row were skipped.

    Raises:
        FaultError: they were.
    """
    if skipped.in_a_row > recipe.train.max_skipped:
        key = "lr" if recipe.optimizer.lr_per_256 is None else "lr_per_256"
        first, last = skipped.step + 2 - skipped.in_a_row, skipped.step + 1
        raise FaultError(
            f"stopped after step {step}: steps {first} to {last} were not finite (learning rate {lr:g}; log.jsonl has "
            "their images), and the weights before may be spoilt as well; start a new run with another --out and a "
            f"lower optimizer.{key}, or continue from an older checkpoint by --resume PATH"
        )


def check_equal_weights(weights: Iterable[Tensor], context: DistContext, step: int) -> None:
    """End a run, after `step` steps, where the ranks' `weights` differ.

    Raises:
        FaultError: they do; with the ranks at fault, if most agree.
    """
    if context.world_size == 1:
        return
    sums = context.gather(weights_sum(weights))
    common, votes = Counter(sums).most_common(1)[0]
    if other := [str(rank) for rank, own in enumerate(sums) if own != common]:
        named = f"of process {' and '.join(other)} of {len(sums)} (counted from 0) differ from the others'"
        if 2 * votes <= len(sums):
            named = f"of the {len(sums)} processes differ, and it is unknown which are right"
        raise FaultError(
            f"stopped at step {step}: the weights {named}, as faulty hardware makes them; the same command continues "
            "from the last checkpoint"
        )


def weights_digest(model: nn.Module) -> str:
    """Return the SHA-256 of all parameters and buffers, in order."""
    digest = hashlib.sha256()
    for tensor in model.state_dict().values():
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def weights_sum(weights: Iterable[Tensor]) -> int:
    """Return the sum of all numbers, their bits taken as integers: cheap, and any change changes it."""
    kinds = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    bits: dict[torch.dtype, list[Tensor]] = defaultdict(list)
    for tensor in weights:
        kind = kinds[tensor.element_size()]
        bits[kind].append(in_order_of_memory(tensor).view(kind))
    # One sum of all, and not one of each: a GPU takes longer to begin one than to take it.
    return int(torch.stack([torch.cat(tensors).sum(dtype=torch.int64) for tensors in bits.values()]).sum())
