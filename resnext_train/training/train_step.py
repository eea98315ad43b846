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

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from resnext_train.compute.loss import TrainingLoss, main_logits
from resnext_train.compute.precision import Precision
from resnext_train.data.image_batch import ImageBatch
from resnext_train.data.rng import micro_batch_seed
from resnext_train.data.sampler import shard_for_rank
from resnext_train.data.transforms.color_transform import ColorTransform
from resnext_train.distributed.dist_context import DistContext
from resnext_train.distributed.gradients import distribute
from resnext_train.training.batch_norm import RunningStatistics
from resnext_train.training.compiled_network import NetworkOptions, compiled, give_zero_gradients
from resnext_train.training.optimizer import FiniteOptimizer
from resnext_train.training.train_metrics import FiniteWatch, Skipped, TrainMeter


class ForwardPass:
    """Colours, network and loss of a micro-batch. DDP sums the gradient over ranks in the backward pass."""

    def __init__(
        self,
        model: nn.Module,
        color_transform: ColorTransform,
        precision: Precision,
        loss: TrainingLoss,
        context: DistContext,
        options: NetworkOptions = NetworkOptions(),  # noqa: B008  frozen
    ) -> None:
        self.model = model
        self._distributed = distribute(model, context, options.bucket_mb, options.comm)
        self._network = compiled(self._distributed, options.compile)  # around DDP, whose buckets torch then knows
        self._options = options
        self._color_transform, self._precision, self._loss = color_transform, precision, loss
        self._dtype = next(model.parameters()).dtype

    def __call__(self, micro_batch: ImageBatch) -> tuple[Tensor, Tensor]:
        """Return the loss, summed over the micro-batch's n images, and the logits (n, classes)."""
        if self._options.records_graphs:
            # From here on the graphs may overwrite the outputs of the last micro-batch, all of which are used by now.
            torch.compiler.cudagraph_mark_step_begin()
        # Outside autocast, which would round the colours.
        pixels = self._color_transform(micro_batch.images, micro_batch.jitter, self._dtype)
        with self._precision.autocast():
            outputs = self._network(pixels)
        return self._loss(outputs, micro_batch.labels), main_logits(outputs)

    def no_sync(self) -> contextlib.AbstractContextManager[None]:
        """Return a context in which backward passes only accumulate gradients on this rank."""
        network = self._distributed
        return network.no_sync() if isinstance(network, DistributedDataParallel) else contextlib.nullcontext()

    def begin_gradients(self) -> None:
        """Prepare parameters without gradients for the backward passes that add them up, see `give_zero_gradients`."""
        if self._options.records_graphs:
            give_zero_gradients(list(self.model.parameters()))


class TrainStep:
    """Takes one optimizer step after another. Enter `statistics` before the first."""

    def __init__(
        self, forward: ForwardPass, optimizer: FiniteOptimizer, context: DistContext, micro_batches: int, seed: int = 0
    ) -> None:
        self.model = forward.model
        self.optimizer = optimizer
        self.statistics = RunningStatistics(self.model, context, micro_batches)
        self.meter = TrainMeter(context.device, context.all_reduce_sum)
        self.watch = FiniteWatch()
        self._forward, self._context = forward, context
        self._micro_batches, self._seed = micro_batches, seed
        single = context.world_size == 1 and micro_batches > 1
        self._shards = (
            [shard_for_rank(micro_batches, 2, 0), shard_for_rank(micro_batches, 2, 1)]
            if single
            else [shard_for_rank(micro_batches, context.world_size, context.rank)]
        )

    def __call__(self, micro_batches: Iterator[ImageBatch], step: int, size: int, lr: float) -> None:
        """Take step number `step` over `size` images. `micro_batches` are this rank's, on its device."""
        self.statistics.begin()
        self.compute_gradients(micro_batches, step, size)
        statistics_finite, losses_finite = self.statistics.are_finite()
        searching = self.optimizer.may_lower_scale()
        all_finite = self.optimizer.step(lr, statistics_finite & losses_finite.all())
        self.statistics.commit(all_finite)
        self.meter.end_step(all_finite)
        self.watch.add(step, all_finite, losses_finite, None if searching is None else searching & statistics_finite)
        torch.manual_seed(micro_batch_seed(self._seed, step, self._micro_batches))  # the same state on all ranks

    def compute_gradients(self, micro_batches: Iterator[ImageBatch], step: int, size: int) -> None:
        """Leave the step's gradient in the parameters, and its statistics ready to commit."""
        self._zero_grad()
        first_shard: list[Tensor] = []
        for i, shard in enumerate(self._shards):
            last_shard = i == len(self._shards) - 1
            for number in shard:
                last = number == shard[-1]
                with self._forward.no_sync() if not last else contextlib.nullcontext():
                    torch.manual_seed(micro_batch_seed(self._seed, step, number))  # for dropout
                    micro_batch = next(micro_batches)
                    loss, logits = self._forward(micro_batch)
                    self.statistics.accumulate(number, loss.detach())
                    if last:
                        self.statistics.end_shard(last_shard)
                    self.meter.add(loss.detach(), logits.detach(), micro_batch.labels, micro_batch.report.missing)
                    self.optimizer.backward(loss / size)
            if not last_shard:
                first_shard = self.optimizer.gradients()
                self._zero_grad()
        if first_shard:  # a single rank adds two shards as an all-reduce of two ranks would
            torch._foreach_add_(self.optimizer.gradients(), first_shard)

    def _zero_grad(self) -> None:
        self.optimizer.zero_grad()
        self._forward.begin_gradients()

    def warm_up_ddp_buckets(self, images: int, crop: int) -> None:
        """Make DDP sum gradients in the same order from the first step on, whether a run is new or resumed.

        DDP rebuilds its buckets after the first backward pass, in the order in which gradients became ready. That
        changes the order of a sum over three or more ranks, and so its last bits. One pass over a micro-batch of
        `images` black images of `crop` × `crop` pixels makes it do so before the first step. The pass leaves no trace.
        """
        if self._context.world_size < 3:
            return
        device = self._context.device
        black = torch.zeros(images, 3, crop, crop, dtype=torch.uint8, device=device)
        labels = torch.zeros(images, dtype=torch.int64, device=device)
        self.statistics.begin()
        loss, _ = self._forward(ImageBatch(black.to(memory_format=torch.channels_last), labels, None))
        self.optimizer.backward(loss)
        self.optimizer.zero_grad()
        self.statistics.restore()

    def read_metrics(self) -> list[Skipped]:
        """Wait for the device: bring `meter` up to date, and return the steps skipped since the last call."""
        self.meter.read()
        return self.watch.read()

    def loss_scale(self) -> float | None:
        """Wait for the device, and return what the loss is multiplied by; None where it is not scaled."""
        scaler = self.optimizer.scaler
        return scaler.get_scale() if scaler.is_enabled() else None

    def stateful_parts(self) -> dict[str, Any]:
        """Return what a checkpoint holds of the step, by its name there."""
        return {
            "model": self.model,
            "optimizer": self.optimizer,
            "scaler": self.optimizer.scaler,
            "meter": self.meter,
            "skipped": self.watch,
        }
