"""Count what a step computes and moves: FLOPs, and bytes to and from memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode


def flop_of(work: Callable[[], object]) -> int:
    """Return the FLOPs of the convolutions and matrix products of `work`, backward passes included."""
    with FlopCounterMode(display=False) as counter:
        work()
    return int(counter.get_total_flops())


def traffic_of(work: Callable[[], object]) -> int:
    """Return the bytes that `work` moves if each call reads all its inputs and writes all its outputs once.

    Kernels that are fused into one move less; this is what eager ones need.
    """
    traffic = _Traffic()
    with traffic:
        work()
    return traffic.bytes


class _Traffic(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.bytes = 0

    def __torch_dispatch__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result = function(*args, **(kwargs or {}))
        if function.namespace != "profiler" and not _is_view(function):
            self.bytes += _bytes((args, kwargs)) + _bytes(result)
        return result


def _is_view(function: Any) -> bool:
    """Return whether a call moves nothing: its result is a view, or memory that is not written yet."""
    if function.name().startswith(("aten::empty", "aten::new_empty", "aten::detach", "aten::_unsafe_view")):
        return True
    results = function._schema.returns
    return bool(results) and all(r.alias_info is not None and not r.alias_info.is_write for r in results)


def _bytes(values: Any) -> int:
    return sum(t.numel() * t.element_size() for t in tree_leaves(values) if isinstance(t, Tensor))
