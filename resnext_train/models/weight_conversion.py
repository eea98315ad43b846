"""Load weights from other tools: find the state dict in a file, recognise its names, translate them to ours.

Recognised by their keys and shapes:

    torchvision, timm      conv1, bn1, layer1.0.conv1, layer1.0.downsample.0, fc: our own names
    CIFAR ports            the same except linear (fc) and shortcut (downsample); shortcut A has no keys, and its zeros
                           are on both sides of the channels, as ours
    pycls                  stem.conv, s1.b1.f.a, s1.b1.proj, head.fc (older files: s1.conv, s2.b1.f.a). Its ImageNet
                           networks take images in blue, green, red order: their first convolution is flipped
    FFCV                   networks with BlurPool: layer2.0.conv2.conv, layer2.0.conv2.blur_filter
    resnext-train          forms a and b of the bottleneck: layer1.0.paths.7.conv1
"""

from __future__ import annotations

import re
from pathlib import PurePath
from typing import Any, Literal

import torch
from torch import Tensor, nn

from resnext_train.config import ModelSection
from resnext_train.errors import InputError
from resnext_train.models.bottleneck_forms import convert_form
from resnext_train.models.build_model import build_on_meta, classifier_names
from resnext_train.models.resnet import ResNet
from resnext_train.models.third_party_models import AUXILIARY_MODULES, timm_models_like

_WRAPPERS = ("state_dict", "model", "model_state", "model_state_dict", "net")
_AVERAGES = ("state_dict_ema", "model_ema")
"""Keys of averages of the weights: timm's, torchvision's reference."""
_PREFIXES = ("module.", "_orig_mod.")


def find_state_dict(content: Any, where: str) -> dict[str, Tensor]:
    """Return the state dict in a loaded file, at the top or under a customary key, without wrappers' prefixes.

    Raises:
        InputError: there is none, a name occurs twice, or a tensor is not a dense one.
    """
    found = _unwrapped(content)
    if found is None:
        held = f"; it has {', '.join(map(str, list(content)[:5]))}" if isinstance(content, dict) and content else ""
        raise InputError(f"{where} is not a checkpoint: it holds no state dict of named tensors{held}")
    bare: dict[str, Tensor] = {}
    for name, tensor in found.items():
        if _bare(name) in bare:
            raise InputError(f"{where} holds {_bare(name)} twice, with and without a prefix; keep one of them")
        if tensor.layout != torch.strided or tensor.is_meta or tensor.is_quantized or tensor.is_nested:
            raise InputError(f"{where}: {name} is no dense tensor of numbers; save it as one")
        bare[_bare(name)] = tensor
    return bare


def _unwrapped(content: Any) -> dict[str, Tensor] | None:
    """Return the first state dict in `content` or, at any depth, under one of the customary keys."""
    rest, seen = [content], set[int]()
    while rest:
        part = rest.pop()
        if not isinstance(part, dict) or not part or id(part) in seen:
            continue
        if all(isinstance(k, str) and isinstance(v, Tensor) for k, v in part.items()):
            return part
        seen.add(id(part))
        rest += [part[key] for key in reversed(_WRAPPERS) if key in part]
    return None


def untaken_average(content: Any) -> str | None:
    """Return under which key a loaded file holds an average of the weights, which `find_state_dict` does not take."""
    return next((key for key in _AVERAGES if isinstance(content, dict) and key in content), None)


def untaken_text(path: PurePath, key: str) -> str:
    """Say that an average under `key` is not taken."""
    return f"{path} also holds an average of the weights, {key}, which is not taken; save it as a file of its own"


def _bare(name: str) -> str:
    while name.startswith(_PREFIXES):
        name = name.split(".", 1)[1]
    return name


def load_weights(
    model: nn.Module,
    weights: dict[str, Tensor],
    where: str,
    section: ModelSection | None = None,
    classifier: Literal["same", "fitting", "new"] = "same",
    named: str | None = None,
) -> str:
    """Copy `weights` into `model`, whose names and shapes must all match, and return a one-line description.

    With `section`, which the model was built from, two things may differ. Auxiliary classifiers, which evaluation does
    not use, may be absent altogether. And the classifier is left out, so that the model keeps its own, if `classifier`
    is "new", or if it is "fitting" and the numbers of classes differ. `named` replaces the description of the names.

    Raises:
        InputError: names or shapes differ; with the first ones, and with the network of timm that has them.
    """
    given = weights
    weights, description = _translate(weights, model)
    description = named or description
    own = model.state_dict()
    for name, tensor in own.items():
        if name.endswith("num_batches_tracked") and name not in weights:  # absent before PyTorch 0.4.1
            weights[name] = torch.zeros_like(tensor)
    missing: set[str] = set()
    if section is not None:
        missing, note = _left_out(own, weights, section, classifier)
        description += note
    kept = {name: tensor for name, tensor in weights.items() if name not in missing}
    if problems := _misfits({name: tensor for name, tensor in own.items() if name not in missing}, kept):
        hint = _hint(given, section, where) if section and isinstance(model, ResNet) else ""
        raise InputError(f"{where} does not fit the network: it {problems}{hint}")
    model.load_state_dict(kept, strict=not missing)
    return f"{where}: {description}"


def classes_in(weights: dict[str, Tensor], section: ModelSection) -> int | None:
    """Return the number of classes in a state dict of `section`'s network; None if it has no classifier."""
    names = classifier_names(section)
    translated, _ = _translate(weights, build_on_meta(section, 2))
    bias = translated.get(names[-1]) if names else None
    return bias.shape[0] if bias is not None and bias.ndim == 1 and len(bias) else None


def _left_out(
    own: dict[str, Tensor], weights: dict[str, Tensor], section: ModelSection, classifier: str
) -> tuple[set[str], str]:
    """Return the parameters that keep the model's own values, and a note about them."""
    missing: set[str] = set()
    note = ""
    prefixes = AUXILIARY_MODULES.get(section.arch, ())
    auxiliary = {name for name in own if prefixes and name.startswith(prefixes)}
    if auxiliary and not any(name.startswith(prefixes) and "num_batches" not in name for name in weights):
        missing |= auxiliary
        note += "; without auxiliary classifiers, which start untrained"
    if classifier == "same":
        return missing, note
    heads = [name for name in classifier_names(section) if name in weights and name not in missing]
    differ = any(weights[name].shape != own[name].shape for name in heads)
    if heads and (classifier == "new" or differ):
        missing |= set(heads)
        layers = ", ".join(sorted({name.rpartition(".")[0] for name in heads}))
        there, here = weights[heads[-1]].shape[0], own[heads[-1]].shape[0]
        of = f"of {there} classes" if differ else "of other classes"
        note += f"; classifier {layers} {of} left out, a new one of {here} starts untrained"
    return missing, note


def _translate(weights: dict[str, Tensor], model: nn.Module) -> tuple[dict[str, Tensor], str]:
    """Return `weights` under the model's names, and a description of the names they had."""
    if not isinstance(model, ResNet):
        return dict(weights), "names of the network's own library"
    description = "names of torchvision and timm"
    if any(re.match(r"s\d\.b1\.f\.a\.", name) for name in weights):
        weights, description = _from_pycls(weights)
    elif "linear.weight" in weights:
        weights = {_CIFAR_PORT.sub(lambda m: _CIFAR_NAMES[m[0]], k): v for k, v in weights.items()}
        description = CIFAR_PORT
    elif model.architecture.blur_pool and any(name.endswith(_BLUR_FILTER) for name in weights):
        weights = {k.replace(".conv.", "."): v for k, v in weights.items() if not k.endswith(_BLUR_FILTER)}
        description = "names of FFCV"
    elif any(".paths." in name for name in weights):
        description = "names of resnext-train, paths of the bottleneck apart"
    architecture = model.architecture
    if architecture.block == "bottleneck":
        weights = convert_form(weights, architecture.form, architecture.cardinality)
    return dict(weights), description


CIFAR_PORT = "names of a CIFAR port"

_BLUR_FILTER = ".blur_filter"
"""What FFCV's BlurPoolConv2d holds beside its convolution, which it calls `conv`: the same filter for all channels."""

_CIFAR_NAMES = {"linear.": "fc.", "shortcut.": "downsample."}
_CIFAR_PORT = re.compile(r"^linear\.|\bshortcut\.")

_PYCLS_BLOCK = re.compile(r"s(\d{1,4})\.b(\d{1,4})\.(f\.[abc]|f\.[abc]_bn|proj|bn)\.(.+)")
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
    """Translate the names of pycls.models.resnet, whose older files call the stem s1 and the stages s2 to s5."""
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
    description = "names of pycls"
    first = renamed.get("conv1.weight")
    if first is not None and first.shape[1:] == (3, 7, 7):
        renamed["conv1.weight"] = first.flip(1)
        description += ", first convolution flipped from blue, green, red to red, green, blue"
    return renamed, description


def _hint(weights: dict[str, Tensor], section: ModelSection, where: str) -> str:
    """Return what in `section` would name the network that `weights` are of, or ""."""
    if not section.blur_pool and any(name.endswith(_BLUR_FILTER) for name in weights):
        return "; it needs model.blur_pool=true"
    known = _fitting_timm_model(weights, section.arch, where)
    return f"; it fits model.arch=timm/{known}" if known else ""


def _fitting_timm_model(weights: dict[str, Tensor], arch: str, where: str) -> str | None:
    """Return a network of timm with the names and shapes of `weights`, whatever the number of classes; or None."""
    shapes = {name: tensor.shape for name, tensor in weights.items()}
    file = "/".join(PurePath(where).parts[-2:])  # a file of the Hugging Face hub is named by its folder
    for name in timm_models_like(arch, file):
        section = ModelSection(arch=f"timm/{name}")
        try:
            own = {key: tensor.shape for key, tensor in build_on_meta(section, 1000).state_dict().items()}
        except RuntimeError:  # one that needs memory; a hint must not take the place of the error
            continue
        if own.keys() == shapes.keys():
            different = {key for key in own if own[key] != shapes[key]}
            if not different or different <= set(classifier_names(section)):
                return name
    return None


def _misfits(own: dict[str, Tensor], weights: dict[str, Tensor]) -> str:
    """Return how names, shapes or types of `weights` differ from a network's `own`, or ""."""
    missing = [k for k in own if k not in weights]
    extra = [k for k in weights if k not in own]
    shapes = [
        f"{k} {tuple(weights[k].shape)} instead of {tuple(own[k].shape)}"
        for k in own
        if k in weights and weights[k].shape != own[k].shape
    ]
    types = [
        f"{k} of type {str(weights[k].dtype).removeprefix('torch.')}"
        for k in own
        if k in weights and own[k].is_floating_point() and not weights[k].is_floating_point()
    ]
    kinds = {"lacks": missing, "has unknown": extra, "has": [*shapes, *types]}
    return "; ".join(f"{kind} {', '.join(names[:3])}{_more(names)}" for kind, names in kinds.items() if names)


def _more(names: list[str]) -> str:
    return f" and {len(names) - 3} more" if len(names) > 3 else ""
