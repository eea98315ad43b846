"""The training loss."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def cross_entropy_sum(logits: Tensor, labels: Tensor, smoothing: float = 0.0) -> Tensor:
    """Cross-entropy summed over a group: logits (n, classes), labels (n,); a scalar.

    With `smoothing` s the target is 1 - s on the label plus s / classes everywhere (Inception-v3 paper, section 7).
    Logits of half precision are computed in fp32.
    """
    wide = logits if logits.dtype.itemsize >= 4 else logits.float()
    return F.cross_entropy(wide, labels, reduction="sum", label_smoothing=smoothing)
