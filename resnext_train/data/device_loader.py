"""Bring batches from loader processes to the training process and on to its device."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple, TypeVar

import torch
from torch import UntypedStorage
from torch.utils.data import DataLoader, Dataset

from resnext_train.data.batch_datasets import PREFETCH
from resnext_train.data.image_batch import ImageBatch, UnreadableImage
from resnext_train.data.loader_workers import TIMED_OUT
from resnext_train.data.sampler import BatchIndices
from resnext_train.distributed.stop_signals import outlive_stop_signals, signals_held_back
from resnext_train.errors import LocalInputError

T = TypeVar("T")


class Loading(NamedTuple):
    """How batches are made."""

    workers: int
    """Loader processes; 0: in the training process."""
    patience: float
    """Seconds to wait for a batch of loader processes before they are given up."""


class DeviceLoader:
    """Batches on this rank's device, one per `BatchIndices` of a sampler, made by loader processes.

    The loader processes live as long as the loader. A batch on the CPU is intact until the next but one is asked for:
    then its memory may be refilled. A pass reports each image that cannot be read once, by `report`.

    Raises:
        LocalInputError: while iterating, an image cannot be read; with its name and the reason.
        RuntimeError: no batch came in time, or a loader process died; see `worker_deaths_explained`.
    """

    def __init__(
        self,
        dataset: Dataset[ImageBatch | UnreadableImage],
        sampler: Iterable[BatchIndices],
        loading: Loading,
        device: torch.device,
        report: Callable[[str], None],
    ) -> None:
        self._device, self._report, workers = device, report, loading.workers
        self._loader = DataLoader(
            dataset,
            batch_size=None,
            sampler=sampler,
            num_workers=workers,
            prefetch_factor=PREFETCH if workers else None,
            persistent_workers=workers > 0,
            timeout=loading.patience / 2 if workers else 0,  # _wait_twice
            pin_memory=device.type == "cuda",
            in_order=True,  # BatchBuffers relies on it
            generator=torch.Generator(),  # or DataLoader would draw from the global one
            worker_init_fn=_init_worker,
        )

    def __iter__(self) -> Iterator[ImageBatch]:
        return on_device(self._host_batches(), self._device)

    def close(self) -> None:
        """End the loader processes, once no iterator over this loader is left; it gives no more batches."""
        del self._loader  # while it is alive, so are they; and its own end, in a cycle of references, takes seconds

    def _host_batches(self) -> Iterator[ImageBatch]:
        mapped: dict[int, UntypedStorage] = {}
        reported: set[str] = set()
        # A stop signal must not kill a new loader process before it can ignore it in `_init_worker`.
        with signals_held_back():
            batches = _wait_twice(iter(self._loader))
        for batch in batches:
            if isinstance(batch, UnreadableImage):
                raise LocalInputError(
                    f"{batch.message}; replace or remove it, or set data.on_bad_image=skip; "
                    "`resnext prepare check` lists all such files"
                )
            for message in batch.report.unreadable:
                if message not in reported:
                    reported.add(message)
                    self._report(message)
            if batch.images.is_shared():
                # Batches come back in the same few buffers; keeping each one alive spares torch from mapping it again.
                memory = batch.images.untyped_storage()
                mapped[memory.data_ptr()] = memory
            yield batch


def _wait_twice(batches: Iterator[T]) -> Iterator[T]:
    """Yield the batches of a DataLoader; where one does not come in time, wait for it once more.

    The clock goes on while a run is suspended: its first wait is over before a loader process has run again.
    """
    while True:
        try:
            yield next(batches)
        except StopIteration:
            return
        except RuntimeError as error:
            if not TIMED_OUT.match(str(error)):
                raise
            yield next(batches)


def _init_worker(worker: int) -> None:
    outlive_stop_signals()


def on_device(batches: Iterable[ImageBatch], device: torch.device) -> Iterator[ImageBatch]:
    """Yield `batches` on `device`; a GPU copies each one while it still computes with the one before.

    The copy runs on its own stream, from pinned memory. The host waits for neither: it asks for the next batch as soon
    as the work on this one is queued.
    """
    if device.type != "cuda":
        yield from batches
        return
    copies, current = torch.cuda.Stream(device), torch.cuda.current_stream(device)
    for batch in batches:
        with torch.cuda.stream(copies):
            copied = batch.to(device)
        current.wait_stream(copies)
        for tensor in (copied.images, copied.labels, copied.jitter):
            if tensor is not None:
                tensor.record_stream(current)  # or its memory could be reused while the step still reads it
        yield copied
