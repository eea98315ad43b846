"""Weights from elsewhere: find the state dict in a file, recognise its names, and load it under ours.

Recognised by their keys and shapes:

    torchvision, timm      conv1, bn1, layer1.0.conv1, layer1.0.downsample.0, fc: our own names
    CIFAR ports            the same but for linear (fc) and shortcut (downsample); shortcut A has no keys, and its zeros
                           are on both sides of the channels, as ours
    pycls                  stem.conv, s1.b1.f.a, s1.b1.proj, head.fc (older files: s1.conv, s2.b1.f.a). Its ImageNet
                           networks see images in the order blue, green, red: their first convolution is turned round
    resnext-train          forms a and b of the bottleneck: layer1.0.paths.7.conv1
"""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor, nn

from resnext_train.errors import InputError
from resnext_train.models.resnet import ResNet
from resnext_train.models.resnext import convert_form

_WRAPPERS = ("state_dict", "model", "model_state", "model_state_dict", "net")
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


def load_weights(model: nn.Module, weights: dict[str, Tensor], where: str, new_classifier: bool = False) -> str:
    """Copy `weights` into `model`, and say in one line what was found; every name and shape must match.

    With `new_classifier`, a classifier of another number of classes is left out, and the model keeps its own.

    Raises:
        InputError: the first names or shapes that differ.
    """
    weights, told = _translated(weights, model)
    own = model.state_dict()
    for name, tensor in own.items():
        if name.endswith("num_batches_tracked") and name not in weights:  # PyTorch before 0.4.1 had none
            weights[name] = torch.zeros_like(tensor)
    classifier = _other_classifier(own, weights) if new_classifier else {}
    kept = {k: v for k, v in weights.items() if k not in classifier}
    _check_fit({k: v for k, v in own.items() if k not in classifier}, kept, where)
    model.load_state_dict(kept, strict=not classifier)
    if classifier:
        there, here = next(iter(classifier.values()))
        layers = ", ".join(sorted({name.rpartition(".")[0] for name in classifier}))
        told += f"; classifier {layers} of {there} classes left out, a new one of {here} starts untrained"
    return f"{where}: {told}"


def classes_in(weights: dict[str, Tensor]) -> int | None:
    """Outputs of the classifier in a state dict: the rows of its last matrix; None where it holds none."""
    matrices = [t for t in weights.values() if t.ndim == 2]
    return matrices[-1].shape[0] if matrices else None


def _translated(weights: dict[str, Tensor], model: nn.Module) -> tuple[dict[str, Tensor], str]:
    """`weights` under the model's names, and whose names they had."""
    if not isinstance(model, ResNet):
        return dict(weights), "names of the network's own library"
    told = "names of torchvision and timm"
    if any(re.match(r"s\d\.b1\.f\.a\.", name) for name in weights):
        weights, told = _from_pycls(weights)
    elif "linear.weight" in weights:
        weights = {_CIFAR_PORT.sub(lambda m: _CIFAR_NAMES[m[0]], k): v for k, v in weights.items()}
        told = "names of a CIFAR port"
    elif any(".paths." in name for name in weights):
        told = "names of resnext-train, paths of the bottleneck apart"
    architecture = model.architecture
    if architecture.block == "bottleneck":
        weights = convert_form(weights, architecture.form, architecture.cardinality)
    return dict(weights), told


_CIFAR_NAMES = {"linear.": "fc.", "shortcut.": "downsample."}
_CIFAR_PORT = re.compile(r"^linear\.|\bshortcut\.")

_PYCLS_BLOCK = re.compile(r"s(\d+)\.b(\d+)\.(f\.[abc]|f\.[abc]_bn|proj|bn)\.(.+)")
_PYCLS_LAYERS = {
    "f.a": "conv1",
    "f.a_bn": "bn1",
    "f.b": "conv2",
    "f.b_bn": "bn2",
    "f.c": "conv3",
    "f.c_bn": "bn3",
    "proj": "downsample.0",
    "bn": "downsample.1",
}


def _from_pycls(weights: dict[str, Tensor]) -> tuple[dict[str, Tensor], str]:
    """pycls.models.resnet, whose older files call the stem s1 and the stages s2 to s5."""
    stem, offset = ("stem", 0) if any(name.startswith("stem.") for name in weights) else ("s1", 1)
    fixed = {f"{stem}.conv.": "conv1.", f"{stem}.bn.": "bn1.", "head.fc.": "fc."}
    renamed = {}
    for name, tensor in weights.items():
        match = _PYCLS_BLOCK.fullmatch(name)
        if match:
            stage, block, layer, kind = int(match[1]) - offset, int(match[2]) - 1, match[3], match[4]
            renamed[f"layer{stage}.{block}.{_PYCLS_LAYERS[layer]}.{kind}"] = tensor
            continue
        start = next((s for s in fixed if name.startswith(s)), "")
        renamed[fixed.get(start, "") + name.removeprefix(start)] = tensor
    told = "names of pycls"
    first = renamed.get("conv1.weight")
    if first is not None and first.shape[1:] == (3, 7, 7):
        renamed["conv1.weight"] = first.flip(1)
        told += ", first convolution turned from blue, green, red to red, green, blue"
    return renamed, told


def _other_classifier(own: dict[str, Tensor], weights: dict[str, Tensor]) -> dict[str, tuple[int, int]]:
    """The tensors of a classifier of another number of classes, each with that number in the file and in the model.

    They are all those whose shapes differ, and must differ in nothing but their rows, by the same two numbers.
    """
    differing = {k: (weights[k].shape, t.shape) for k, t in own.items() if k in weights and weights[k].shape != t.shape}
    rows = {(there[0], here[0]) for there, here in differing.values() if len(there) and there[1:] == here[1:]}
    same_kind = len(rows) == 1 and all(there[1:] == here[1:] for there, here in differing.values())
    return {k: next(iter(rows)) for k in differing} if same_kind else {}


def _check_fit(own: dict[str, Tensor], weights: dict[str, Tensor], where: str) -> None:
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


def _more(names: list[str]) -> str:
    return f" and {len(names) - 3} more" if len(names) > 3 else ""
