"""Networks of other libraries: torchvision's classification networks, and timm's if it is installed."""

from __future__ import annotations

import difflib
import re

from torch import nn
from torchvision import models as torchvision_models

from resnext_train.errors import InputError, MissingLibraryError

AUXILIARY_WEIGHTS = {"torchvision/googlenet": 0.3, "torchvision/inception_v3": 0.4}
"""Weight of each auxiliary classifier's loss: GoogLeNet paper (arXiv 1409.4842), section 5; for Inception-v3 the
authors' TensorFlow code, as the paper states none."""

AUXILIARY_MODULES = {"torchvision/googlenet": ("aux1.", "aux2."), "torchvision/inception_v3": ("AuxLogits.",)}
"""Prefixes of the auxiliary classifiers' parameter names."""


def build_third_party(library: str, name: str, num_classes: int) -> nn.Module:
    """Return a network initialised by its library; input (N, 3, H, W), output (N, num_classes) logits.

    In training mode torchvision's GoogLeNet and Inception-v3 return a tuple: the logits, then those of their auxiliary
    classifiers.

    Raises:
        InputError: the library is not installed (MissingLibraryError) or has no such network.
    """
    return {"torchvision": _torchvision, "timm": _timm}[library](name, num_classes)


def _torchvision(name: str, num_classes: int) -> nn.Module:
    known = torchvision_models.list_models(module=torchvision_models)
    if name not in known:
        raise InputError(_unknown("torchvision", name, known))
    options: dict[str, object] = {"weights": None, "num_classes": num_classes}
    if f"torchvision/{name}" in AUXILIARY_WEIGHTS:
        options |= {"aux_logits": True, "init_weights": True}
    return torchvision_models.get_model(name, **options)  # type: ignore[no-any-return]


def _timm(name: str, num_classes: int) -> nn.Module:
    try:
        import timm
    except ImportError as error:
        raise MissingLibraryError(
            f"model.arch: timm/{name} needs the library timm, which is not installed; pip install 'resnext-train[timm]'"
        ) from error
    if not timm.is_model(name):
        raise InputError(_unknown("timm", name, timm.list_models()))
    return timm.create_model(name, num_classes=num_classes, pretrained=False)  # type: ignore[no-any-return]


def timm_models_like(arch: str, file: str) -> list[str]:
    """Return the networks of timm that weights may be of: those named in `file`, then ResNets of `arch`'s depth.

    None where timm is not installed.
    """
    try:
        import timm
    except ImportError:
        return []
    named = sorted((name for name in timm.list_models() if name in file), key=len, reverse=True)
    depth = re.search(r"\d+", arch)
    alike = [n for n in timm.list_models(module="resnet") if depth and re.search(rf"(?<!\d){depth[0]}(?!\d)", n)]
    return list(dict.fromkeys([*named[:_NAMED], *alike]))


_NAMED = 5
"""How many networks are taken that a file's path names, the longest names first: each is built to see its shapes."""


def _unknown(library: str, name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"it has {len(known)}, such as {', '.join(known[:3])}"
    return f"model.arch: {library} has no network {name!r}; {hint}"
