"""Count the calls of torch's dispatcher that a step makes: on a GPU, each but the views launches a kernel or more."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode

from resnext_train.compute.step_parts import Part, observed
from resnext_train.config import Recipe

NETWORK: frozenset[str] = frozenset({"forward", "loss", "backward", "optimizer"})
"""Parts that a bare loop has, too."""

REST = "rest"
"""What lies in no part."""

_UNCOUNTED = ("aten::as_strided", "aten::detach", "c10d::")
"""Calls of a backward pass that depend on neither network nor step: views, and an all-reduce for each bucket."""


class LaunchCount(TorchDispatchMode):
    """While inside, counts the outermost dispatcher calls by part: fused and foreach calls are one, and views are too.

    Those of autograd count, and so do those of DistributedDataParallel; those of the profiler, which are no work, do
    not.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls: dict[str, Counter[str]] = {}
        self._part: str = REST

    def __torch_dispatch__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Count the call, and make it."""
        if function.namespace != "profiler":
            self.calls.setdefault(self._part, Counter())[function.name()] += 1
        return function(*args, **(kwargs or {}))

    @contextmanager
    def part(self, name: Part) -> Iterator[None]:
        """Return the context of a part, see `observed`."""
        before, self._part = self._part, name
        try:
            yield
        finally:
            self._part = before

    def totals(self) -> dict[str, int]:
        """Return the number of calls by part."""
        return {part: calls.total() for part, calls in self.calls.items()}

    @property
    def beyond(self) -> int:
        """The number of calls beyond forward, backward and the optimizer."""
        return sum(number for part, number in self.totals().items() if part not in NETWORK)

    @property
    def backward(self) -> int:
        """The number of calls of the backward passes, without views and all-reduces."""
        calls = self.calls.get("backward", Counter())
        return sum(number for name, number in calls.items() if not name.startswith(_UNCOUNTED))


def count_launches(work: Callable[[], object]) -> LaunchCount:
    """Return the calls that `work`, such as a step, makes."""
    count = LaunchCount()
    with count, observed(count.part):
        work()
    return count


OPTIONS = {"ema": (12, 0), "clip_norm": (6, 0), "erase": (0, 18), "mix": (0, 12)}
"""Calls that an option of the recipe may add, by its section or key: to a step, and to each of its micro-batches."""


def budget(micro_batches: int, options: Iterable[str] = ()) -> int:
    """Return how many calls beyond NETWORK a step may make on a rank with `micro_batches` micro-batches and `options`.

    It depends on neither ranks nor parameters: a micro-batch's gradients are added in one call. What sums over ranks
    cost lies in the backward pass, see `backward_budget`.
    """
    added = sum(of_step + of_each * micro_batches for of_step, of_each in (OPTIONS[name] for name in options))
    return 60 + 30 * (micro_batches - 1) + added


def options_of(recipe: Recipe) -> list[str]:
    """Return which of OPTIONS a recipe uses."""
    used = {
        "ema": recipe.ema.decay is not None,
        "clip_norm": recipe.optimizer.clip_norm is not None,
        "erase": recipe.erase.probability > 0,
        "mix": recipe.mix.mixup > 0 or recipe.mix.cutmix > 0,
    }
    return [name for name, is_used in used.items() if is_used]


def backward_budget(parameters: int, micro_batches: int, ranks: int) -> int:
    """Return how many calls the backward passes of a rank's step may make beyond one of a single rank each.

    On several ranks DistributedDataParallel copies each gradient into a bucket once; and where there are several
    micro-batches, the pass that sums over ranks adds to the gradients of those before, one by one.
    """
    return parameters * ((ranks > 1) + (ranks > 1 and micro_batches > 1))
