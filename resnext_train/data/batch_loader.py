"""Batches from loader processes to the training process and on to its device."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import UntypedStorage
from torch.utils.data import DataLoader, Dataset

from resnext_train.data.batch_datasets import AHEAD
from resnext_train.data.image_batch import ImageBatch, UnreadableImage
from resnext_train.data.sampler import BatchIndices
from resnext_train.distributed.stop_signals import outlive_stop_signals, signals_held_back
from resnext_train.errors import LocalInputError


@dataclass(frozen=True)
class LoaderOptions:
    """Loader processes per training process, and whether their groups go through pinned memory."""

    workers: int
    pin_memory: bool


def build_loader(
    dataset: Dataset[ImageBatch | UnreadableImage], sampler: Iterable[BatchIndices], options: LoaderOptions
) -> DataLoader[ImageBatch | UnreadableImage]:
    """A loader of one `BatchIndices` at a time whose processes live as long as it does.

    It has a random generator of its own, because DataLoader would otherwise draw from the global one.
    """
    return DataLoader(
        dataset,
        batch_size=None,
        sampler=sampler,
        num_workers=options.workers,
        prefetch_factor=AHEAD if options.workers else None,
        persistent_workers=options.workers > 0,
        pin_memory=options.pin_memory,
        in_order=True,  # Batches builds on it
        generator=torch.Generator(),
        worker_init_fn=_begin,
    )


def _begin(worker: int) -> None:
    outlive_stop_signals()


def readable_batches(loader: DataLoader[ImageBatch | UnreadableImage]) -> Iterator[ImageBatch]:
    """The groups of `loader`. Each holds until the next but one is asked for: then its memory may be filled again.

    Raises:
        LocalInputError: an image cannot be read; names it and says why.
    """
    received: dict[int, UntypedStorage] = {}
    with signals_held_back():
        batches = iter(loader)
    for batch in batches:
        if isinstance(batch, UnreadableImage):
            raise LocalInputError(
                f"{batch.message}; replace or remove it, or set data.on_bad_image=skip; "
                "`resnext-prepare check` lists all such files"
            )
        if batch.images.is_shared():
            # This memory will come again. As long as it is kept here, torch need not map it anew.
            memory = batch.images.untyped_storage()
            received[memory.data_ptr()] = memory
        yield batch


def report_unreadable(batches: Iterable[ImageBatch], report: Callable[[str], None]) -> Iterator[ImageBatch]:
    """`batches`; what could not be read is told, once each."""
    told: set[str] = set()
    for batch in batches:
        for text in batch.report.unreadable:
            if text not in told:
                told.add(text)
                report(text)
        yield batch


def on_device(batches: Iterable[ImageBatch], device: torch.device) -> Iterator[ImageBatch]:
    """`batches` on `device`; on a GPU each is copied while it still computes with the one before.

    The copy runs on a stream of its own, from pinned memory. The host waits for neither: it asks for the next group as
    soon as the work on this one is queued.
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
                tensor.record_stream(current)  # its memory is not given away before the step is done with it
        yield copied
