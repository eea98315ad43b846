"""python -m helpers.harmed_loader: a trainer with a loader process, one of which a test stops, kills or suspends.

It says `NUMBER PID` of each batch and of the loader process that made it, and why no more come; then it begins again.
"""

from __future__ import annotations

import gc
import os
import time
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset, _utils

from resnext_train.data.batch_datasets import BatchBuffers
from resnext_train.data.device_loader import DeviceLoader, Loading
from resnext_train.data.image_batch import ImageBatch, UnreadableImage
from resnext_train.data.loader_workers import worker_deaths_explained
from resnext_train.data.sampler import BatchIndices
from resnext_train.distributed.stop_signals import StopSignals
from resnext_train.errors import LocalInputError

PATIENCE = 1.0
"""Seconds that it waits for each batch but the first, for which a loader process may have to import torch."""

worker: Any = _utils.worker
_utils.MP_STATUS_CHECK_INTERVAL = worker.MP_STATUS_CHECK_INTERVAL = 0.5  # of torch, for which 5 s are a test's too many


class Slow(Dataset[ImageBatch | UnreadableImage]):
    """Each batch takes 0.1 s, and is labelled by its process."""

    def __init__(self) -> None:
        self._buffers = BatchBuffers(8, 1)

    def __getitem__(self, indices: BatchIndices) -> ImageBatch:
        time.sleep(0.1)
        return ImageBatch(self._buffers.next(1), torch.tensor([os.getpid()]), None)


def main() -> None:
    torch.set_num_threads(1)
    numbers = [BatchIndices(0, np.array([n])) for n in range(1000)]
    while True:
        loader = DeviceLoader(Slow(), numbers, Loading(1, 60), torch.device("cpu"), print)
        try:
            with worker_deaths_explained():
                for number, batch in enumerate(loader):
                    loader._patience = PATIENCE
                    print(number, int(batch.labels), flush=True)
        except LocalInputError as error:
            print(error, flush=True)
        loader.close()
        gc.collect()  # or the next loader process would collect what the error has kept, and complain


if __name__ == "__main__":
    with StopSignals(announce=False):
        main()
