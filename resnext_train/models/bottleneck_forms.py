"""The bottleneck of ResNeXt in its three equivalent forms (ResNeXt paper, Figure 3).

All three compute the same function of the same weights, in training and in evaluation; `convert_form` converts weights
between them. With C paths (the cardinality) of width d:

    a   each path: 1×1 to d, 3×3 in d, 1×1 to the output width; the paths' outputs are summed
    b   each path: 1×1 to d, 3×3 in d; the paths' outputs are concatenated; one 1×1 to the output width
    c   one 1×1 to C·d; one 3×3 in C groups; one 1×1 to the output width

Every convolution but the block's last is followed by BN and ReLU. After the last one, BN comes once the paths are
aggregated, before the shortcut is added, and ReLU after that. So form a has one BN after its sum; one BN per path
would be another network. The stride is in the 3×3 convolutions, as in the papers' code.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from resnext_train.models.architecture import Form
from resnext_train.models.blocks import BlockShape, PostActivation, conv, make_shortcut


class Path(nn.Module):
    """One path of a block in form a or b: 1×1 to the path's width, 3×3; in form a also 1×1 to `outputs`, without BN."""

    def __init__(self, shape: BlockShape, outputs: int | None = None) -> None:
        super().__init__()
        width = shape.width // shape.cardinality
        self.conv1 = conv(shape.inputs, width, 1)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = conv(width, width, 3, shape.stride, blur=shape.blurs(shape.width))
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = conv(width, outputs, 1) if outputs else nn.Identity()
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.relu(self.bn2(self.conv2(x)))
        return self.conv3(x)  # type: ignore[no-any-return]


class BottleneckA(PostActivation):
    """Form a: paths whose outputs are summed (ResNeXt paper, Figure 3a; equation 2)."""

    def __init__(self, shape: BlockShape) -> None:
        super().__init__(shape)
        self.paths = nn.ModuleList(Path(shape, shape.outputs) for _ in range(shape.cardinality))
        self.bn3 = nn.BatchNorm2d(shape.outputs)
        self.downsample = make_shortcut(shape)

    def transform(self, x: Tensor) -> Tensor:
        total = self.paths[0](x)
        for path in self.paths[1:]:
            total = total + path(x)
        return self.bn3(total)  # type: ignore[no-any-return]


class BottleneckB(PostActivation):
    """Form b: paths concatenated, then one 1×1 convolution (ResNeXt paper, Figure 3b)."""

    def __init__(self, shape: BlockShape) -> None:
        super().__init__(shape)
        self.paths = nn.ModuleList(Path(shape) for _ in range(shape.cardinality))
        self.conv3 = conv(shape.width, shape.outputs, 1)
        self.bn3 = nn.BatchNorm2d(shape.outputs)
        self.downsample = make_shortcut(shape)

    def transform(self, x: Tensor) -> Tensor:
        x = torch.cat([path(x) for path in self.paths], 1)
        return self.bn3(self.conv3(x))  # type: ignore[no-any-return]


class BottleneckC(PostActivation):
    """Form c: grouped convolution (ResNeXt paper, Figure 3c); with cardinality 1 the bottleneck of ResNet."""

    def __init__(self, shape: BlockShape) -> None:
        super().__init__(shape)
        self.conv1 = conv(shape.inputs, shape.width, 1)
        self.bn1 = nn.BatchNorm2d(shape.width)
        self.conv2 = conv(shape.width, shape.width, 3, shape.stride, shape.cardinality, shape.blurs(shape.width))
        self.bn2 = nn.BatchNorm2d(shape.width)
        self.conv3 = conv(shape.width, shape.outputs, 1)
        self.bn3 = nn.BatchNorm2d(shape.outputs)
        self.downsample = make_shortcut(shape)

    def transform(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.relu(self.bn2(self.conv2(x)))
        return self.bn3(self.conv3(x))  # type: ignore[no-any-return]


FORMS: dict[Form, type[PostActivation]] = {"a": BottleneckA, "b": BottleneckB, "c": BottleneckC}


def convert_form(weights: Mapping[str, Tensor], form: Form, cardinality: int) -> dict[str, Tensor]:
    """Convert the state dict of a network or block, of any form, to `form`; the networks compute the same.

    Only bottlenecks change; tensors that need no cutting or joining are shared with `weights`. `cardinality` is the
    network's, which weights in form c do not reveal.
    """
    joined = _join_paths(weights)
    return joined if form == "c" else _split_paths(joined, form, cardinality)


_IN_PATH = re.compile(r"(.*?)paths\.(\d+)\.(.+)")


def _join_paths(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Convert forms a and b to form c: concatenate the paths' output channels, for the last 1×1 the input channels."""
    joined: dict[str, Tensor] = {}
    paths: dict[str, dict[int, Tensor]] = {}
    for name, tensor in weights.items():
        match = _IN_PATH.fullmatch(name)
        if match:
            paths.setdefault(match[1] + match[3], {})[int(match[2])] = tensor
        else:
            joined[name] = tensor
    for name, by_number in paths.items():
        tensors = [by_number[i] for i in sorted(by_number)]  # a file may hold them in another order
        joined[name] = tensors[0] if tensors[0].ndim == 0 else torch.cat(tensors, 1 if "conv3." in name else 0)
    return joined


def _split_paths(joined: Mapping[str, Tensor], form: Form, cardinality: int) -> dict[str, Tensor]:
    """Convert form c to form a or b: split each tensor of a bottleneck along the dimension that `_join_paths` uses."""
    inner = ("conv1", "bn1", "conv2", "bn2", *(("conv3",) if form == "a" else ()))
    split: dict[str, Tensor] = {}
    for name, tensor in joined.items():
        *block, layer, kind = name.split(".")
        prefix = "".join(f"{part}." for part in block)
        if f"{prefix}conv3.weight" not in joined or layer not in inner:
            split[name] = tensor
            continue
        pieces = tensor.chunk(cardinality, 1 if layer == "conv3" else 0) if tensor.ndim else [tensor] * cardinality
        split |= {f"{prefix}paths.{i}.{layer}.{kind}": piece for i, piece in enumerate(pieces)}
    return split
