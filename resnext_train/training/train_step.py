"""One optimizer step: the same for any number of processes.

A step's images are cut into groups (data/sampler.py). Each group is one forward and backward pass, with BN statistics
of its own. The loss is the sum over all images of the step divided by their number, so gradients are summed over
groups and processes, never averaged.

Sums are made in a fixed tree: group by group within a process's share, then over processes. A single process keeps
two shares like two processes would, so that one and two processes take bit-identical steps on one thread each (two
terms commute); with more, the order of the sum over processes is the communication library's own.

A step whose loss, BN statistics or gradient are not finite changes nothing: neither weights nor momentum nor BN's
running statistics, which one such batch would spoil for good. That is decided on the device, alike on all processes.
"""

import contextlib
import inspect
from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from torch.optim import Optimizer

from resnext_train.compute.loss import TrainingLoss, main_logits
from resnext_train.compute.precision import Precision
from resnext_train.data.image_batch import ImageBatch
from resnext_train.data.rng import micro_batch_seed
from resnext_train.data.sampler import shard_for_rank
from resnext_train.data.transforms.color_transform import ColorTransform
from resnext_train.distributed.dist_context import DistContext
from resnext_train.training.batch_norm import RunningStatistics
from resnext_train.training.optimizer import step_where
from resnext_train.training.train_metrics import FiniteWatch, TrainMeter

_PLAIN_LOSS = TrainingLoss()


class TrainStep:
    """Takes steps: model, optimizer and all that one step needs besides its images."""

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        color_transform: ColorTransform,
        precision: Precision,
        context: DistContext,
        micro_batches: int,
        loss: TrainingLoss = _PLAIN_LOSS,
        clip_norm: float | None = None,
        seed: int = 0,
    ) -> None:
        self.statistics = RunningStatistics(model, context, micro_batches)
        self.scaler = precision.scaler()
        self.meter = TrainMeter(context.device, context.all_reduce_sum)
        self.watch = FiniteWatch()
        self.model, self.optimizer = model, optimizer
        self._network = _distribute(model, context)
        self._color_transform, self._precision = color_transform, precision
        self._micro_batches, self._loss, self._clip_norm, self._seed = micro_batches, loss, clip_norm, seed
        self._context = context
        self._dtype = next(model.parameters()).dtype
        single = context.world_size == 1 and micro_batches > 1
        self._shards = (
            [shard_for_rank(micro_batches, 2, 0), shard_for_rank(micro_batches, 2, 1)]
            if single
            else [shard_for_rank(micro_batches, context.world_size, context.rank)]
        )

    def __call__(self, micro_batches: Iterator[ImageBatch], step: int, size: int, lr: float) -> None:
        """Step number `step` over `size` images; this process's `micro_batches` are on its device."""
        for settings in self.optimizer.param_groups:
            settings["lr"] = lr
        self.optimizer.zero_grad(set_to_none=True)
        self.compute_gradients(micro_batches, step, size)
        self.scaler.unscale_(self.optimizer)
        norm = get_total_norm([p.grad for p in self.model.parameters() if p.grad is not None])
        finite = self.statistics.is_finite()
        all_finite = finite.all() & norm.isfinite()
        if self._clip_norm is not None:
            clip_grads_with_norm_(self.model.parameters(), self._clip_norm, norm)
        step_where(all_finite, self.optimizer)
        self.scaler.update()
        self.statistics.commit(all_finite)
        self.meter.end_step(all_finite)
        self.watch.add(step, all_finite, finite[1:])
        torch.manual_seed(micro_batch_seed(self._seed, step, self._micro_batches))  # the same state on all processes

    def warm_up_ddp_buckets(self, images: int, crop: int) -> None:
        """Make DDP sum gradients in the same order from the first step on, whether a run is new or continued.

        DDP arranges the gradients anew after the first backward pass, in the order in which they became ready. That
        changes the order of a sum over three or more processes, and so its last bits. One pass over `images` images of
        `crop` by `crop` pixels, which are as many as a group has, makes it do so before the first step; nothing
        remains of the pass.
        """
        if self._context.world_size < 3:
            return
        device = self._context.device
        micro_batch = ImageBatch(
            torch.zeros(images, 3, crop, crop, dtype=torch.uint8, device=device).to(memory_format=torch.channels_last),
            torch.zeros(images, dtype=torch.int64, device=device),
            None,
        )
        outputs = self._outputs(micro_batch)
        self.scaler.scale(self._loss(outputs, micro_batch.labels)).backward()  # type: ignore[no-untyped-call]
        self.optimizer.zero_grad(set_to_none=True)
        self.statistics.reset()

    def compute_gradients(self, micro_batches: Iterator[ImageBatch], step: int, size: int) -> None:
        """Leave the step's gradient in the parameters and its statistics ready to move."""
        aside: list[Tensor] = []
        for i, shard in enumerate(self._shards):
            last_shard = i == len(self._shards) - 1
            for number in shard:
                last = number == shard[-1]
                with self._no_sync() if not last else contextlib.nullcontext():
                    self._micro_batch(next(micro_batches), step, number, size, last, last_shard)
            if not last_shard:
                aside = [p.grad for p in self.model.parameters() if p.grad is not None]
                self.optimizer.zero_grad(set_to_none=True)
        if aside:
            torch._foreach_add_([p.grad for p in self.model.parameters() if p.grad is not None], aside)

    def _no_sync(self) -> contextlib.AbstractContextManager[None]:
        """Gradients are only accumulated on this process while inside."""
        network = self._network
        return network.no_sync() if isinstance(network, DistributedDataParallel) else contextlib.nullcontext()

    def _micro_batch(
        self, micro_batch: ImageBatch, step: int, number: int, size: int, last: bool, last_shard: bool
    ) -> None:
        """Forward and backward pass of one group."""
        torch.manual_seed(micro_batch_seed(self._seed, step, number))  # for dropout
        outputs = self._outputs(micro_batch)
        loss = self._loss(outputs, micro_batch.labels)
        self.statistics.accumulate(number, loss.detach())
        if last:
            self.statistics.end_shard(last_shard)
        self.meter.add(loss.detach(), main_logits(outputs).detach(), micro_batch.labels, micro_batch.report.missing)
        self.scaler.scale(loss / size).backward()  # type: ignore[no-untyped-call]

    def _outputs(self, micro_batch: ImageBatch) -> Any:
        """The network's outputs for a group's images."""
        # Outside autocast, which would round the colours.
        pixels = self._color_transform(micro_batch.images, micro_batch.jitter, self._dtype)
        with self._precision.autocast():
            return self._network(pixels)


def _distribute(model: nn.Module, context: DistContext) -> nn.Module:
    """`model` in DistributedDataParallel where there is more than one process; gradients are summed."""
    if context.world_size == 1:
        return model
    devices = [context.device] if context.device.type == "cuda" else None
    # RunningStatistics keeps the buffers equal. torch 2.15 renames the argument that leaves them to it.
    renamed = "forward_sync_buffers" in inspect.signature(DistributedDataParallel).parameters
    own_buffers = {"forward_sync_buffers" if renamed else "broadcast_buffers": False}
    network = DistributedDataParallel(model, devices, gradient_as_bucket_view=True, **own_buffers)  # type: ignore[arg-type]
    network.register_comm_hook(None, _sum_gradients)
    return network


def _sum_gradients(
    state: object,
    bucket: dist.GradBucket,  # type: ignore[name-defined]
) -> torch.futures.Future[Tensor]:
    """DDP's own hook divides by the number of processes first; a sum needs no such factor."""
    work = dist.all_reduce(bucket.buffer(), async_op=True)
    assert work is not None
    return work.get_future().then(lambda future: future.value()[0])  # type: ignore[no-any-return]
