"""The forward pass of a micro-batch, over DistributedDataParallel where there are several ranks."""

from __future__ import annotations

import contextlib

from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from resnext_train.compute.loss import TrainingLoss, main_logits
from resnext_train.compute.precision import Precision
from resnext_train.data.image_batch import ImageBatch
from resnext_train.data.transforms.color_transform import ColorTransform
from resnext_train.distributed.dist_context import DistContext
from resnext_train.distributed.gradients import distribute


class ForwardPass:
    """Colours, network and loss of a micro-batch. DDP sums the gradient over ranks in the backward pass."""

    def __init__(
        self,
        model: nn.Module,
        color_transform: ColorTransform,
        precision: Precision,
        loss: TrainingLoss,
        context: DistContext,
    ) -> None:
        self.model = model
        self._network = distribute(model, context)
        self._color_transform, self._precision, self._loss = color_transform, precision, loss
        self._dtype = next(model.parameters()).dtype

    def __call__(self, micro_batch: ImageBatch) -> tuple[Tensor, Tensor]:
        """Return the loss, summed over the micro-batch's n images, and the logits (n, classes)."""
        # Outside autocast, which would round the colours.
        pixels = self._color_transform(micro_batch.images, micro_batch.jitter, self._dtype)
        with self._precision.autocast():
            outputs = self._network(pixels)
        return self._loss(outputs, micro_batch.labels), main_logits(outputs)

    def no_sync(self) -> contextlib.AbstractContextManager[None]:
        """Return a context in which backward passes only accumulate gradients on this rank."""
        network = self._network
        return network.no_sync() if isinstance(network, DistributedDataParallel) else contextlib.nullcontext()
