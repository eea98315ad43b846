"""One optimizer step, the same on any number of ranks.

A step's images are cut into micro-batches (data/sampler.py). Each is one forward and backward pass with BatchNorm
statistics of its own. The loss is the sum over all images of the step divided by their number, so gradients are summed
over micro-batches and ranks, never averaged.

Sums have a fixed order: micro-batch by micro-batch within a rank's shard, then over ranks. A single rank computes two
shards as two ranks would, so that one and two ranks take bit-identical steps on one thread each: a sum of two terms
commutes. With more ranks the order of the sum is the communication library's own.

A step whose loss, BatchNorm statistics or gradient are not finite changes nothing: neither weights nor momentum nor
the running statistics, which one such step would spoil for good. The device decides that, alike on all ranks.
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
    """Takes one optimizer step after another; holds all that a step needs besides its images."""

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
        """Take step number `step` over `size` images. `micro_batches` are this rank's, on its device."""
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
        torch.manual_seed(micro_batch_seed(self._seed, step, self._micro_batches))  # the same state on all ranks

    def warm_up_ddp_buckets(self, images: int, crop: int) -> None:
        """Make DDP sum gradients in the same order from the first step on, whether a run is new or resumed.

        DDP rebuilds its buckets after the first backward pass, in the order in which gradients became ready. That
        changes the order of a sum over three or more ranks, and so its last bits. One pass over a micro-batch of
        `images` black images of `crop` × `crop` pixels makes it do so before the first step. The pass leaves no trace.
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
        """Leave the step's gradient in the parameters, and its statistics ready to commit."""
        first_shard: list[Tensor] = []
        for i, shard in enumerate(self._shards):
            last_shard = i == len(self._shards) - 1
            for number in shard:
                last = number == shard[-1]
                with self._no_sync() if not last else contextlib.nullcontext():
                    self._micro_batch(next(micro_batches), step, number, size, last, last_shard)
            if not last_shard:
                first_shard = [p.grad for p in self.model.parameters() if p.grad is not None]
                self.optimizer.zero_grad(set_to_none=True)
        if first_shard:  # a single rank adds two shards as an all-reduce of two ranks would
            torch._foreach_add_([p.grad for p in self.model.parameters() if p.grad is not None], first_shard)

    def _no_sync(self) -> contextlib.AbstractContextManager[None]:
        """While inside, gradients are only accumulated on this rank."""
        network = self._network
        return network.no_sync() if isinstance(network, DistributedDataParallel) else contextlib.nullcontext()

    def _micro_batch(
        self, micro_batch: ImageBatch, step: int, number: int, size: int, last: bool, last_shard: bool
    ) -> None:
        torch.manual_seed(micro_batch_seed(self._seed, step, number))  # for dropout
        outputs = self._outputs(micro_batch)
        loss = self._loss(outputs, micro_batch.labels)
        self.statistics.accumulate(number, loss.detach())
        if last:
            self.statistics.end_shard(last_shard)
        self.meter.add(loss.detach(), main_logits(outputs).detach(), micro_batch.labels, micro_batch.report.missing)
        self.scaler.scale(loss / size).backward()  # type: ignore[no-untyped-call]

    def _outputs(self, micro_batch: ImageBatch) -> Any:
        # Outside autocast, which would round the colours.
        pixels = self._color_transform(micro_batch.images, micro_batch.jitter, self._dtype)
        with self._precision.autocast():
            return self._network(pixels)


def _distribute(model: nn.Module, context: DistContext) -> nn.Module:
    """Wrap `model` in DistributedDataParallel where there are several ranks; gradients are summed."""
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
    """Sum a bucket over ranks; DDP's own hook would divide by their number first."""
    work = dist.all_reduce(bucket.buffer(), async_op=True)
    assert work is not None
    return work.get_future().then(lambda future: future.value()[0])  # type: ignore[no-any-return]
