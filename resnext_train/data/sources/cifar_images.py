"""CIFAR-10 and CIFAR-100 from the files that torchvision unpacks, held in memory."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torchvision.datasets import CIFAR10, CIFAR100

from resnext_train.data.decode.lazy_image import DecodedImage, LazyImage
from resnext_train.data.sources.image_source import MEMORY
from resnext_train.data.split_folders import VALIDATION
from resnext_train.errors import InputError

_DATASETS = {"CIFAR-10": CIFAR10, "CIFAR-100": CIFAR100}


def find_cifar(root: Path) -> str | None:
    """Return which of CIFAR-10 and CIFAR-100 is in `root`, or None.

    Raises:
        InputError: `root` holds another data set as well, or is the folder of CIFAR's files itself.
    """
    folders = {dataset.base_folder: title for title, dataset in _DATASETS.items()}
    if root.name in folders and (root / _DATASETS[folders[root.name]].meta["filename"]).is_file():
        raise InputError(f"{root} holds CIFAR's files themselves; set data.root to its parent folder")
    held = [name for name in (*folders, "train", *VALIDATION) if (root / name).is_dir()]
    titles = [folders[name] for name in held if name in folders]
    if titles and len(held) > 1:
        raise InputError(f"{root} holds {' and '.join(held)}; data.root must hold one data set, so move the others")
    return titles[0] if titles else None


class CifarImages:
    """The training or test images of a CIFAR data set in `root`, in the order of its files; val is the test split.

    The files are pickles, and reading a pickle can run any code. torchvision first compares each file's MD5 sum with
    that of the published file, so only the published files are ever read.

    Raises:
        InputError: a file is missing, differs from the published one, or cannot be opened.
    """

    storage = MEMORY

    def __init__(self, title: str, root: Path, split: Literal["train", "val"]) -> None:
        dataset = _load(title, root, train=split == "train")
        self.classes: tuple[str, ...] = tuple(dataset.classes)
        self.labels: NDArray[np.int64] = np.array(dataset.targets, np.int64)
        self._pixels: NDArray[np.uint8] = dataset.data  # (images, 32, 32, 3)
        self._title = f"{title} {'train' if split == 'train' else 'test'} image"
        self._opened = title, root, split

    def __reduce__(self) -> tuple[type[CifarImages], tuple[str, Path, Literal["train", "val"]]]:
        return CifarImages, self._opened  # reading the files again, a second's work, instead of a copy of 150 MB

    def __len__(self) -> int:
        return len(self.labels)

    def name(self, i: int) -> str:
        return f"{self._title} {i}"

    def pixels(self, images: NDArray[np.int64]) -> NDArray[np.uint8]:
        return self._pixels[images]

    def image(self, i: int) -> LazyImage:
        return DecodedImage(torch.from_numpy(self._pixels[i]).permute(2, 0, 1))


def _load(title: str, root: Path, train: bool) -> CIFAR10:
    dataset = _DATASETS[title]
    folder = root / dataset.base_folder
    try:
        with warnings.catch_warnings():
            # The published pickles are from Python 2 and hold a flag as 0, where NumPy 2.4 expects False.
            align = r"dtype\(\): align should be passed"
            warnings.filterwarnings("ignore", align, np.exceptions.VisibleDeprecationWarning)
            return dataset(root, train=train, download=False)
    except RuntimeError as error:
        raise InputError(
            f"{folder} is incomplete or damaged: a file is missing or not the published one; "
            f"unpack {dataset.filename} into {root} again"
        ) from error
    except OSError as error:
        raise InputError(f"{folder} cannot be read: {error.strerror}") from error
