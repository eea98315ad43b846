"""Build and run networks on the meta device, where tensors have shapes and no values, without what changes no shape."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

_KEEP_SHAPES = frozenset(
    {Tensor.normal_, Tensor.uniform_, Tensor.fill_, Tensor.zero_, F.batch_norm, F.relu, Tensor.relu_, Tensor.relu}
)


class ShapesOnly(TorchFunctionMode):
    """While entered, what keeps a meta tensor's shape returns it: initialisation, BatchNorm and ReLU.

    Torch works out each operation's shape in Python there, which takes most of the time for these.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if func in _KEEP_SHAPES and args and args[0].is_meta:
            return args[0]
        return func(*args, **(kwargs or {}))
