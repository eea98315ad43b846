"""Several labels per image."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def read_multi_labels(file: str, names: Sequence[str], classes: Sequence[str]) -> NDArray[np.int64]:
    raise NotImplementedError
