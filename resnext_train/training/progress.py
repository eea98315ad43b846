"""Parts of a run's state that belong to no other part: how far it is, and torch's generator."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from resnext_train.errors import InputError


@dataclass
class Progress:
    """How far a run is, as stored in its checkpoints."""

    step: int = 0
    """Finished steps."""
    epoch_is_open: bool = False
    """Whether the epoch that `step` ended still has to be evaluated: its evaluation is about to begin, or has begun."""
    seconds: float = 0.0
    epoch_began: float = 0.0
    """`seconds` when the running epoch began."""
    last: dict[str, Any] | None = None
    """The last evaluation."""

    def state_dict(self) -> dict[str, Any]:
        return asdict(self)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        vars(self).update(vars(Progress(**state)))


class TorchRng:
    """torch's CPU generator."""

    def state_dict(self) -> Tensor:
        return torch.get_rng_state()

    def load_state_dict(self, state: Tensor) -> None:
        """Load the generator's state.

        Raises:
            InputError: it is none.
        """
        try:
            torch.set_rng_state(state)
        except RuntimeError as error:
            raise InputError("the checkpoint holds no state of torch's random generator") from error
