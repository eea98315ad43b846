"""Weights that were not written by this tool: find the state dict in the file and clean its names."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from resnext_train.errors import InputError

_WRAPPERS = ("state_dict", "model", "model_state")
_PREFIXES = ("module.", "_orig_mod.")


def find_state_dict(content: Any, where: str) -> dict[str, Tensor]:
    """The state dict in a loaded file: bare, or under one of the customary keys; wrappers' prefixes removed.

    Raises:
        InputError: there is none.
    """
    for key in _WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
            break
    named = isinstance(content, dict) and all(isinstance(k, str) for k in content)
    if not named or not content or not all(isinstance(v, Tensor) for v in content.values()):
        raise InputError(f"{where} is not a checkpoint: it holds no state dict of named tensors")
    return {_bare(name): tensor for name, tensor in content.items()}


def _bare(name: str) -> str:
    while name.startswith(_PREFIXES):
        name = name.split(".", 1)[1]
    return name


def load_weights(model: nn.Module, weights: dict[str, Tensor], where: str) -> None:
    """Copy `weights` into `model`; every name and shape must match.

    Raises:
        InputError: the first names or shapes that differ.
    """
    own = model.state_dict()
    missing = [k for k in own if k not in weights]
    extra = [k for k in weights if k not in own]
    shapes = [
        f"{k} {tuple(weights[k].shape)} instead of {tuple(own[k].shape)}"
        for k in own
        if k in weights and weights[k].shape != own[k].shape
    ]
    kinds = {"lacks": missing, "has unknown": extra, "has": shapes}
    problems = [f"{kind} {', '.join(names[:3])}{_more(names)}" for kind, names in kinds.items() if names]
    if problems:
        raise InputError(f"{where} does not fit the network: it {'; '.join(problems)}")
    model.load_state_dict(weights)


def _more(names: list[str]) -> str:
    return f" and {len(names) - 3} more" if len(names) > 3 else ""
