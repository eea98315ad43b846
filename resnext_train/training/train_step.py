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

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from resnext_train.checkpoint.stored_weights import Kind
from resnext_train.compute.loss import Targets, TrainingLoss, main_logits
from resnext_train.compute.precision import Precision
from resnext_train.compute.step_parts import part
from resnext_train.data.image_batch import ImageBatch
from resnext_train.data.rng import micro_batch_seed
from resnext_train.data.sampler import shard_for_rank
from resnext_train.data.transforms.augmentation import DeviceTransforms
from resnext_train.distributed.dist_context import DistContext
from resnext_train.distributed.gradients import distribute
from resnext_train.training.batch_norm import RunningStatistics
from resnext_train.training.compiled_network import NetworkOptions, compiled, zero_gradients
from resnext_train.training.ema import WeightAverage
from resnext_train.training.optimizer import FiniteOptimizer, Gradients, add_gradients
from resnext_train.training.step_sums import StepSums
from resnext_train.training.train_metrics import FiniteWatch, Skipped, StepResults, Totals, TrainMeter


class KeptImages:
    """A few images of a run's first step as the network was given them, for people to look at.

    Keeps none unless it is asked to. Those of later steps may have another size.
    """

    def __init__(self) -> None:
        self._missing = 0
        self._images: list[Tensor] = []

    def keep(self, count: int) -> None:
        """Keep the next `count` images."""
        self._missing, self._images = count, []

    def add(self, pixels: Tensor) -> None:
        """Keep what is missing of normalised images (n, 3, S, S), as copies."""
        if self._missing:
            self._images.append(pixels[: self._missing].detach().clone())
            self._missing -= len(self._images[-1])

    def take(self) -> Tensor | None:
        """Return what is kept (n, 3, S, S), and keep no more; None where nothing is."""
        images, self._missing, self._images = self._images, 0, []
        return torch.cat(images) if images else None


class ForwardPass:
    """Transforms, network and loss of a micro-batch. DDP sums the gradient over ranks in the backward pass."""

    def __init__(
        self,
        model: nn.Module,
        transforms: DeviceTransforms,
        precision: Precision,
        loss: TrainingLoss,
        context: DistContext,
        options: NetworkOptions = NetworkOptions(),  # noqa: B008  frozen
    ) -> None:
        self.model = model
        self._distributed = distribute(model, context, options.bucket_mb, options.comm)
        self._network = compiled(self._distributed, options.compile)  # around DDP, whose buckets torch then knows
        self._options = options
        self._transforms, self._precision, self._loss = transforms, precision, loss
        self._dtype = precision.compute_dtype(next(model.parameters()).dtype)
        self.kept_images = KeptImages()

    def __call__(self, micro_batch: ImageBatch, step: int, number: int) -> tuple[Tensor, Tensor]:
        """Return the loss, summed over the n images of micro-batch `number`, and whether each prediction is right (n,).

        Of an image that is mixed of two, the one with the larger part counts.
        """
        if self.records_graphs:
            # From here on the graphs may overwrite the outputs of the last micro-batch, all of which are used by now.
            torch.compiler.cudagraph_mark_step_begin()
        with part("color"):  # outside autocast, which would compute colours in fewer bits
            pixels = self._transforms(micro_batch, self._dtype)
            targets = Targets(micro_batch.labels)
            if mixing := self._transforms.mixing:
                mix = mixing.draw(step, number, *pixels.shape[2:])
                pixels = mix.images(pixels)
                targets = Targets(micro_batch.labels, mix.partners(micro_batch.labels), mix.weight)
        if step == 0:
            self.kept_images.add(pixels)
        with part("forward"), self._precision.autocast():
            outputs = self._network(pixels)
        with part("loss"):
            loss = self._loss(outputs, targets)
        return loss, main_logits(outputs).argmax(1) == targets.heavier

    def no_sync(self) -> AbstractContextManager[None]:
        """Return a context in which backward passes only accumulate gradients on this rank."""
        network = self._distributed
        return network.no_sync() if isinstance(network, DistributedDataParallel) else nullcontext()

    @property
    def records_graphs(self) -> bool:
        """Whether gradients lie in memory that the next pass overwrites, see `zero_gradients`."""
        return self._options.records_graphs


class TrainStep:
    """Takes one optimizer step after another. Enter `statistics` before the first."""

    def __init__(
        self,
        forward: ForwardPass,
        optimizer: FiniteOptimizer,
        context: DistContext,
        micro_batches: int,
        seed: int = 0,
        average: WeightAverage | None = None,
    ) -> None:
        self.model, self.kept_images, self._average = forward.model, forward.kept_images, average
        self.optimizer = optimizer
        self.meter = TrainMeter()
        self.watch = FiniteWatch()
        self._forward, self._context = forward, context
        self._micro_batches, self._seed = micro_batches, seed
        single = context.world_size == 1 and micro_batches > 1
        self._shards = (
            [shard_for_rank(micro_batches, 2, 0), shard_for_rank(micro_batches, 2, 1)]
            if single
            else [shard_for_rank(micro_batches, context.world_size, context.rank)]
        )
        self.statistics = RunningStatistics(self.model, context.device)
        shards, statistics = len(self._shards), self.statistics
        self._sums = StepSums(statistics.size, micro_batches, shards, statistics.dtype, context)
        self._statistics_of_shards = [statistics.parts(of_shard) for of_shard in self._sums.of_shards]
        self._results = StepResults(micro_batches)

    def __call__(self, micro_batches: Iterator[ImageBatch], step: int, size: int, lr: float) -> None:
        """Take step number `step` over `size` images. `micro_batches` are this rank's, on its device."""
        self.compute_gradients(micro_batches, step, size)
        largest = self._sums.largest()
        searching = self.optimizer.may_lower_scale()
        all_finite = self.optimizer.step(lr, largest)
        self.statistics.commit(self._sums.statistics / self._micro_batches, all_finite)
        if self._average is not None:
            self._average.update(step, all_finite)
        flags = (all_finite,) if searching is None else (all_finite, searching & (largest < torch.inf))
        self._results.add(step, size, self._sums.take_results(*flags))
        self._seed_generators(step, self._micro_batches)  # the same state on all ranks

    def compute_gradients(self, micro_batches: Iterator[ImageBatch], step: int, size: int) -> None:
        """Leave the step's gradient in the parameters, and its sums ready to commit."""
        self._sums.begin()
        self.statistics.begin()
        total: Gradients | None = None
        for i, shard in enumerate(self._shards):
            in_place = self._forward.records_graphs
            of_shard: Gradients | None = zero_gradients(self.model.parameters()) if in_place else None
            for number in shard:
                last = number == shard[-1]
                summed_over_ranks = last and self._context.world_size > 1
                # The pass that sums over ranks adds to what the parameters hold. From others it is quicker to take all
                # gradients and to add them at once, unless they lie in memory that is overwritten.
                adds_up = summed_over_ranks or in_place
                self.optimizer.hold(of_shard if adds_up else None)
                with nullcontext() if summed_over_ranks else self._forward.no_sync():
                    self._seed_generators(step, number)  # for dropout and erased boxes
                    with part("input"):
                        micro_batch = next(micro_batches)
                    loss, correct = self._forward(micro_batch, step, number)
                    self._add(i, number, loss, correct, micro_batch)
                    if last and i == len(self._shards) - 1:
                        self._sums.begin_reduce()
                    with part("backward"):
                        self.optimizer.backward(loss / size)
                gradients = self.optimizer.gradients()
                of_shard = gradients if adds_up else add_gradients(of_shard, gradients)
            # A single rank adds two shards as an all-reduce of two ranks would.
            total = add_gradients(of_shard, total) if of_shard and total else of_shard
        self.optimizer.hold(total)

    @torch.no_grad()
    def _add(self, shard: int, number: int, loss: Tensor, correct: Tensor, micro_batch: ImageBatch) -> None:
        self.statistics.accumulate(self._statistics_of_shards[shard])
        self._sums.add(shard, number, loss, correct, micro_batch.report.missing)

    def _seed_generators(self, step: int, micro_batch: int) -> None:
        seed_generators(micro_batch_seed(self._seed, step, micro_batch), self._context.device)

    def warm_up_ddp_buckets(self, images: int, crop: int) -> None:
        """Make DDP sum gradients in the same order from the first step on, whether a run is new or resumed.

        DDP rebuilds its buckets after the first backward pass, in the order in which gradients became ready. That
        changes the order of a sum over three or more ranks, and so its last bits. One pass over a micro-batch of
        `images` black images of `crop` × `crop` pixels, any size that the network takes, makes it do so before the
        first step. The pass leaves no trace.
        """
        if self._context.world_size < 3:
            return
        device = self._context.device
        black = torch.zeros(images, 3, crop, crop, dtype=torch.uint8, device=device)
        labels = torch.zeros(images, dtype=torch.int64, device=device)
        self.statistics.begin()
        loss, _ = self._forward(ImageBatch(black.to(memory_format=torch.channels_last), labels, None), 0, 0)
        self.optimizer.backward(loss)
        self.optimizer.hold(None)
        self.statistics.restore()

    def without_sync(self) -> AbstractContextManager[None]:
        """Return a context in which steps sum no gradients over ranks, to measure what the sum takes."""
        return self._forward.no_sync()

    def read_metrics(self) -> list[Skipped]:
        """Wait for the device: bring `meter` up to date, and return the steps skipped since the last call."""
        results = self._results.read()
        self.meter.add(results)
        return self.watch.add(results)

    def peek(self) -> Totals:
        """Wait for the device, and return the meter's window so far. Changes nothing."""
        window = replace(self.meter.window)
        window.add(self._results.peek())
        return window

    def loss_scale(self) -> float | None:
        """Wait for the device, and return what the loss is multiplied by; None where it is not scaled."""
        scaler = self.optimizer.scaler
        return scaler.get_scale() if scaler.is_enabled() else None

    def networks(self) -> dict[Kind, nn.Module]:
        """Return the networks to evaluate: the one that is trained, and one with its average where that is kept."""
        return {"model": self.model, **({"ema": self._average.network()} if self._average else {})}

    def weights(self) -> list[Tensor]:
        """Return all parameters and buffers, and their average where it is kept."""
        return [*self.model.state_dict().values(), *(self._average.tensors() if self._average else ())]

    def stateful_parts(self) -> dict[str, Any]:
        """Return what a checkpoint holds of the step, by its name there."""
        return {
            "model": self.model,
            **({"ema": self._average} if self._average else {}),
            "optimizer": self.optimizer,
            "scaler": self.optimizer.scaler,
            "meter": self.meter,
            "skipped": self.watch,
        }


def seed_generators(seed: int, device: torch.device) -> None:
    """Do what torch.manual_seed does for the CPU and `device`, and nothing for devices that have no part in the run."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.default_generators[device.index].manual_seed(seed)
