"""Images as files."""

from __future__ import annotations

import hashlib
import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

MakeCifar = Callable[[Path, str], dict[str, NDArray[np.uint8]]]
"""What the fixture `make_cifar` gives."""


def save_image(path: Path, size: tuple[int, int] = (48, 40), seed: int = 0, **options: Any) -> Path:
    """A smooth random RGB image of (width, height), which JPEG does not garble, as a file."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (5, 6, 3), dtype=np.uint8))
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse.resize(size, Image.Resampling.BICUBIC).save(path, **options)
    return path


def save_images(root: Path, count: int) -> Path:
    """`count` small images of four classes."""
    for i in range(count):
        save_image(root / f"c{i % 4}" / f"{i:03d}.JPEG", (40, 32), i)
    return root


class _PickleOfPython2(pickle.Pickler):
    """Arrays as in the published CIFAR files, which were written by Python 2.

    They hold 0 for the flag `align` of the array's type, which releases of NumPy 2.4 warn of unless it is False;
    later ones let 0 pass. 1, which means the same for bytes, is warned of by them all.
    """

    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, np.dtype):
            return np.dtype, (value.str[1:], 1, 1), (3, "|", None, None, None, -1, -1, 0)
        return NotImplemented


def write_pickle(path: Path, content: dict[str, Any]) -> str:
    """Write `content` as Python 2 would; the MD5 sum of the file."""
    file = io.BytesIO()
    _PickleOfPython2(file, protocol=2).dump(content)
    data = file.getvalue().replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    path.write_bytes(data)
    return hashlib.md5(data).hexdigest()
