"""Bring batches from loader processes to the training process and on to its device."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.reduction import ForkingPickler
from types import FrameType
from typing import Any, Generic, NamedTuple, TypeVar

import torch
from torch import UntypedStorage
from torch.utils.data import DataLoader, Dataset

from resnext_train.data.batch_datasets import PREFETCH
from resnext_train.data.image_batch import Batch, UnreadableImage
from resnext_train.data.loader_workers import name_signal, process_arguments, starting_processes
from resnext_train.data.sampler import BatchIndices
from resnext_train.distributed.process_limits import exceeded_limit
from resnext_train.errors import FaultError, InputError, LocalInputError, printable

B = TypeVar("B", bound=Batch)

_LONGEST_TICK = 5.0
"""Seconds in which the patience is counted."""


class Loading(NamedTuple):
    """How batches are made."""

    workers: int
    """Loader processes; 0: in the training process."""
    patience: float
    """Seconds to wait for a batch of loader processes before they are given up."""


class _WithErrors(Dataset[Any]):
    """A dataset that returns its OSErrors: raised ones would lose their numbers between two processes.

    So it does with those of opening its images again in a loader process that is not forked.
    """

    def __init__(self, dataset: Dataset[Any]) -> None:
        self._dataset = dataset
        self._not_opened: UnreadableImage | None = None

    def __getstate__(self) -> bytes:
        return bytes(ForkingPickler.dumps(self._dataset))

    def __setstate__(self, state: bytes) -> None:
        self._not_opened = None
        try:
            self._dataset = ForkingPickler.loads(state)
        except InputError as error:
            self._not_opened = UnreadableImage(str(error), error_number=0)
        except OSError as error:
            self._not_opened = _unreadable(error)

    def __getitem__(self, indices: BatchIndices) -> Any:
        if self._not_opened:
            return self._not_opened
        try:
            return self._dataset[indices]
        except OSError as error:
            return _unreadable(error)


def _unreadable(error: OSError) -> UnreadableImage:
    return UnreadableImage(printable(f"{error.filename} cannot be read: {error.strerror}"), error.errno)


def _as_it_is(batch: B) -> B:
    """Return a batch unchanged: DataLoader itself would make tensors of arrays, and lists of tuples."""
    return batch


class DeviceLoader(Generic[B]):
    """Batches on this rank's device, one per `BatchIndices` of a sampler, made by loader processes.

    The loader processes live as long as the loader. A batch on the CPU is intact until the next but one is asked for:
    then its memory may be refilled. A pass reports each image that cannot be read once, by `report`.

    Raises:
        LocalInputError: while iterating, an image cannot be read, with its name and the reason; or no batch came in
            time.
        FaultError: while iterating, a limit of the system was exceeded.
        RuntimeError: a loader process died; see `worker_deaths_explained`.
    """

    def __init__(
        self,
        dataset: Dataset[B | UnreadableImage],
        sampler: Iterable[BatchIndices],
        loading: Loading,
        device: torch.device,
        report: Callable[[str], None],
    ) -> None:
        self._device, self._report = device, report
        workers, self._patience = loading
        self._workers = workers
        self._loader: DataLoader[B | UnreadableImage] | None = DataLoader(
            _WithErrors(dataset),
            batch_size=None,
            sampler=sampler,
            collate_fn=_as_it_is,
            prefetch_factor=PREFETCH if workers else None,
            persistent_workers=workers > 0,
            pin_memory=device.type == "cuda",
            in_order=True,  # BatchBuffers relies on it
            generator=torch.Generator(),  # or DataLoader would draw from the global one
            **process_arguments(workers),
        )

    def __iter__(self) -> Iterator[B]:
        return on_device(self._host_batches(), self._device)

    def close(self) -> None:
        """End the loader processes, once no iterator over this loader is left; it gives no more batches."""
        self._loader = None  # while it is there, so are they; and its own end, in a cycle of references, takes seconds

    def _host_batches(self) -> Iterator[B]:
        assert self._loader is not None, "it is closed"
        mapped: dict[int, UntypedStorage] = {}
        reported: set[str] = set()
        with starting_processes(self._workers):
            batches = iter(self._loader)
        while (batch := self._next(batches)) is not None:
            if isinstance(batch, UnreadableImage):
                raise _error_about(batch)
            for message in batch.report.unreadable:
                if message not in reported:
                    reported.add(message)
                    self._report(message)
            if batch.pixels.is_shared():
                # Batches come back in the same few buffers; keeping each one alive spares torch from mapping it again.
                memory = batch.pixels.untyped_storage()
                mapped[memory.data_ptr()] = memory
            yield batch

    def _next(self, batches: Iterator[B | UnreadableImage]) -> B | UnreadableImage | None:
        """Return the next batch of a DataLoader, or None behind the last.

        DataLoader's own time-out does not cover a process that stops while it hands over a batch; and with it,
        DataLoader does not notice that its thread that pins memory has ended.
        """
        try:
            with _alarm_after(self._patience if self._workers else None):
                return next(batches, None)
        except RuntimeError as error:
            raise name_signal(error, getattr(batches, "_workers", ())) from error
        except _NothingCameError as error:
            for process in getattr(batches, "_workers", ()):
                with suppress(ProcessLookupError):
                    os.kill(process.pid, signal.SIGCONT)  # one that is stopped would never end
            raise LocalInputError(
                f"the loader processes gave no images for {self._patience:.0f} s; see whether the disk or network that "
                "holds the images answers, or raise train.patience"
            ) from error


class _NothingCameError(Exception):
    """The patience is over."""


@contextmanager
def _alarm_after(patience: float | None) -> Iterator[None]:
    """Raise _NothingCameError where what is inside takes over `patience` seconds; None: never.

    They are counted by ticks of a timer: of the time for which a run is suspended, one tick counts. Only the main
    thread can be interrupted; elsewhere this does nothing.
    """
    if patience is None or threading.current_thread() is not threading.main_thread():
        yield
        return
    tick, ticks = min(_LONGEST_TICK, patience / 2), 0

    def count(number: int, frame: FrameType | None) -> None:
        nonlocal ticks
        ticks += 1
        if ticks * tick >= patience:
            raise _NothingCameError

    before = signal.signal(signal.SIGALRM, count)
    signal.setitimer(signal.ITIMER_REAL, tick, tick)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, signal.SIG_DFL if before is None else before)  # None: not Python's


def _error_about(image: UnreadableImage) -> Exception:
    if image.error_number is None:
        return LocalInputError(
            f"{image.message}; replace or remove it, or set data.on_bad_image=skip; `resnext prepare check` lists all "
            "such files"
        )
    if limit := exceeded_limit(OSError(image.error_number, image.message)):
        return FaultError(limit, report_here=True)
    return LocalInputError(image.message)


def on_device(batches: Iterable[B], device: torch.device) -> Iterator[B]:
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
        for tensor in copied.tensors:
            tensor.record_stream(current)  # or its memory could be reused while the step still reads it
        yield copied
