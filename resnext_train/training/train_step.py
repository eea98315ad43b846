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
from resnext_train.data.image_batch import Group
from resnext_train.data.rng import group_seed
from resnext_train.data.sampler import deal
from resnext_train.data.transforms.color_transform import Photometric
from resnext_train.distributed.dist_context import Process
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
        photometric: Photometric,
        precision: Precision,
        process: Process,
        groups: int,
        loss: TrainingLoss = _PLAIN_LOSS,
        clip_norm: float | None = None,
        seed: int = 0,
    ) -> None:
        self.statistics = RunningStatistics(model, process, groups)
        self.scaler = precision.scaler()
        self.meter = TrainMeter(process.device, process.sum_)
        self.watch = FiniteWatch()
        self.model, self.optimizer = model, optimizer
        self._network = _distribute(model, process)
        self._photometric, self._precision = photometric, precision
        self._groups, self._loss, self._clip_norm, self._seed = groups, loss, clip_norm, seed
        self._process = process
        self._dtype = next(model.parameters()).dtype
        single = process.world == 1 and groups > 1
        self._shares = (
            [deal(groups, 2, 0), deal(groups, 2, 1)] if single else [deal(groups, process.world, process.rank)]
        )

    def __call__(self, groups: Iterator[Group], step: int, size: int, lr: float) -> None:
        """Step number `step` over `size` images; this process's `groups` are on its device."""
        for settings in self.optimizer.param_groups:
            settings["lr"] = lr
        self.optimizer.zero_grad(set_to_none=True)
        self.compute_gradients(groups, step, size)
        self.scaler.unscale_(self.optimizer)
        norm = get_total_norm([p.grad for p in self.model.parameters() if p.grad is not None])
        finite = self.statistics.finite()
        moving = finite.all() & norm.isfinite()
        if self._clip_norm is not None:
            clip_grads_with_norm_(self.model.parameters(), self._clip_norm, norm)
        step_where(moving, self.optimizer)
        self.scaler.update()
        self.statistics.move(moving)
        self.meter.end_step(moving)
        self.watch.add(step, moving, finite[1:])
        torch.manual_seed(group_seed(self._seed, step, self._groups))  # the same state on all processes

    def settle_buckets(self, images: int, crop: int) -> None:
        """Make DDP sum gradients in the same order from the first step on, whether a run is new or continued.

        DDP arranges the gradients anew after the first backward pass, in the order in which they became ready. That
        changes the order of a sum over three or more processes, and so its last bits. One pass over `images` images of
        `crop` by `crop` pixels, which are as many as a group has, makes it do so before the first step; nothing
        remains of the pass.
        """
        if self._process.world < 3:
            return
        device = self._process.device
        group = Group(
            torch.zeros(images, 3, crop, crop, dtype=torch.uint8, device=device).to(memory_format=torch.channels_last),
            torch.zeros(images, dtype=torch.int64, device=device),
            None,
        )
        outputs = self._outputs(group)
        self.scaler.scale(self._loss(outputs, group.labels)).backward()  # type: ignore[no-untyped-call]
        self.optimizer.zero_grad(set_to_none=True)
        self.statistics.reset()

    def compute_gradients(self, groups: Iterator[Group], step: int, size: int) -> None:
        """Leave the step's gradient in the parameters and its statistics ready to move."""
        aside: list[Tensor] = []
        for i, share in enumerate(self._shares):
            last_share = i == len(self._shares) - 1
            for number in share:
                last = number == share[-1]
                with self._no_sync() if not last else contextlib.nullcontext():
                    self._group(next(groups), step, number, size, last, last_share)
            if not last_share:
                aside = [p.grad for p in self.model.parameters() if p.grad is not None]
                self.optimizer.zero_grad(set_to_none=True)
        if aside:
            torch._foreach_add_([p.grad for p in self.model.parameters() if p.grad is not None], aside)

    def _no_sync(self) -> contextlib.AbstractContextManager[None]:
        """Gradients are only accumulated on this process while inside."""
        network = self._network
        return network.no_sync() if isinstance(network, DistributedDataParallel) else contextlib.nullcontext()

    def _group(self, group: Group, step: int, number: int, size: int, last: bool, last_share: bool) -> None:
        """Forward and backward pass of one group."""
        torch.manual_seed(group_seed(self._seed, step, number))  # for dropout
        outputs = self._outputs(group)
        loss = self._loss(outputs, group.labels)
        self.statistics.add_group(number, loss.detach())
        if last:
            self.statistics.end_share(last_share)
        self.meter.add(loss.detach(), main_logits(outputs).detach(), group.labels, group.report.missing)
        self.scaler.scale(loss / size).backward()  # type: ignore[no-untyped-call]

    def _outputs(self, group: Group) -> Any:
        """The network's outputs for a group's images."""
        # Outside autocast, which would round the colours.
        pixels = self._photometric(group.images, group.jitter, self._dtype)
        with self._precision.autocast():
            return self._network(pixels)


def _distribute(model: nn.Module, process: Process) -> nn.Module:
    """`model` in DistributedDataParallel where there is more than one process; gradients are summed."""
    if process.world == 1:
        return model
    devices = [process.device] if process.device.type == "cuda" else None
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
