"""Bring batches from loader processes to the training process and on to its device."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import UntypedStorage
from torch.utils.data import DataLoader, Dataset

from resnext_train.data.batch_datasets import PREFETCH
from resnext_train.data.image_batch import ImageBatch, UnreadableImage
from resnext_train.data.sampler import BatchIndices
from resnext_train.distributed.stop_signals import outlive_stop_signals, signals_held_back
from resnext_train.errors import LocalInputError


@dataclass(frozen=True)
class LoaderOptions:
    """Loader processes per training process, and whether their batches pass through pinned memory."""

    workers: int
    pin_memory: bool


def build_loader(
    dataset: Dataset[ImageBatch | UnreadableImage], sampler: Iterable[BatchIndices], options: LoaderOptions
) -> DataLoader[ImageBatch | UnreadableImage]:
    """Return a loader of whole batches, one per `BatchIndices`, whose loader processes live as long as it does."""
    return DataLoader(
        dataset,
        batch_size=None,
        sampler=sampler,
        num_workers=options.workers,
        prefetch_factor=PREFETCH if options.workers else None,
        persistent_workers=options.workers > 0,
        pin_memory=options.pin_memory,
        in_order=True,  # BatchBuffers relies on it
        generator=torch.Generator(),  # or DataLoader would draw from the global one
        worker_init_fn=_init_worker,
    )


def _init_worker(worker: int) -> None:
    outlive_stop_signals()


def readable_batches(loader: DataLoader[ImageBatch | UnreadableImage]) -> Iterator[ImageBatch]:
    """Yield the batches of `loader`, each intact until the next but one is asked for: then its memory may be refilled.

    Raises:
        LocalInputError: an image cannot be read; with its name and the reason.
    """
    mapped: dict[int, UntypedStorage] = {}
    # A stop signal must not kill a new loader process before it can ignore it in `_init_worker`.
    with signals_held_back():
        batches = iter(loader)
    for batch in batches:
        if isinstance(batch, UnreadableImage):
            raise LocalInputError(
                f"{batch.message}; replace or remove it, or set data.on_bad_image=skip; "
                "`resnext-prepare check` lists all such files"
            )
        if batch.images.is_shared():
            # Batches come back in the same few buffers; keeping each one alive spares torch from mapping it again.
            memory = batch.images.untyped_storage()
            mapped[memory.data_ptr()] = memory
        yield batch


def report_unreadable(batches: Iterable[ImageBatch], report: Callable[[str], None]) -> Iterator[ImageBatch]:
    """Yield `batches`, and report each unreadable image once."""
    reported: set[str] = set()
    for batch in batches:
        for message in batch.report.unreadable:
            if message not in reported:
                reported.add(message)
                report(message)
        yield batch


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
