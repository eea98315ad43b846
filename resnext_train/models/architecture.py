"""What a network's name says: block, depth, cardinality, base width. No torch, so that a wrong name fails at once."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Literal

from resnext_train.config import ModelSection
from resnext_train.errors import InputError

STAGE_WIDTHS = (64, 128, 256, 512)
"""Width of the four stages before cardinality and base width (ResNet paper, Table 1)."""

_BASIC_BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}
_BOTTLENECK_BLOCKS = {
    14: (1, 1, 1, 1),
    26: (2, 2, 2, 2),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}
_NAME = re.compile(r"(?:(wide_)?resnet(N)(?:_2)?|resne(?:xt|t)(N)_(N)x(N)d)".replace("N", r"[1-9]\d*"))


@dataclass(frozen=True)
class Architecture:
    """A four-stage residual network for ImageNet-sized images.

    `blocks` counts the blocks of each stage. `cardinality` (C) is the number of groups of a bottleneck's 3×3
    convolution and `base_width` (d) the width of one group in the first stage (ResNeXt paper, section 3.3); a ResNet
    has C = 1 and d = 64.
    """

    block: Literal["basic", "bottleneck"]
    blocks: tuple[int, int, int, int]
    cardinality: int = 1
    base_width: int = 64

    @property
    def depth(self) -> int:
        """Convolutions on the longest path plus the classifier, as the papers count them."""
        return sum(self.blocks) * (2 if self.block == "basic" else 3) + 2

    @property
    def expansion(self) -> int:
        """Output channels of a block over its stage's width."""
        return 1 if self.block == "basic" else 4

    def inner_width(self, stage: int) -> int:
        """Channels of the 3×3 convolution in stage 0 to 3: C·d in the first, doubled from stage to stage."""
        return STAGE_WIDTHS[stage] * self.base_width // 64 * self.cardinality

    def outer_width(self, stage: int) -> int:
        """Output channels of stage 0 to 3."""
        return STAGE_WIDTHS[stage] * self.expansion


def parse_architecture(
    name: str,
    blocks: tuple[int, ...] | None = None,
    cardinality: int | None = None,
    base_width: int | None = None,
) -> Architecture:
    """The architecture that `name` means, with the hyper-parameters that are not None put in place of its own.

    Names: resnetDEPTH, resnextDEPTH_CxDd (also resnetDEPTH_CxDd, for C = 1), wide_resnet50_2, wide_resnet101_2.

    Raises:
        InputError: not such a name, a depth without customary blocks, or hyper-parameters that do not fit.
    """
    match = _NAME.fullmatch(name)
    if not match or (match[1] is not None) != name.endswith("_2"):
        raise InputError(
            f"model.arch: unknown network {name!r}; use resnetDEPTH or resnextDEPTH_CxDd, "
            "such as resnet50 or resnext50_32x4d"
        )
    depth = int(match[2] or match[3])
    block: Literal["basic", "bottleneck"] = "basic" if depth in _BASIC_BLOCKS and match[2] else "bottleneck"
    customary = _BASIC_BLOCKS if block == "basic" else _BOTTLENECK_BLOCKS
    if blocks is None and depth not in customary:
        depths = {*_BOTTLENECK_BLOCKS, *(_BASIC_BLOCKS if match[2] else ())}
        known = ", ".join(str(d) for d in sorted(depths))
        raise InputError(
            f"model.arch: no customary blocks for depth {depth} (known: {known}); state model.blocks, "
            "such as [3, 4, 6, 3]"
        )
    plan = blocks or customary[depth]
    assert len(plan) == 4
    architecture = Architecture(block, plan, int(match[4] or 1), int(match[5] or (128 if match[1] else 64)))
    architecture = replace(
        architecture,
        cardinality=cardinality or architecture.cardinality,
        base_width=base_width or architecture.base_width,
    )
    _check(name, depth, architecture)
    return architecture


def architecture_of(section: ModelSection) -> Architecture:
    """The architecture that a recipe's model section describes; raises InputError where it describes none."""
    return parse_architecture(section.arch, section.blocks, section.cardinality, section.base_width)


def _check(name: str, depth: int, architecture: Architecture) -> None:
    if architecture.depth != depth:
        raise InputError(
            f"model.blocks: {list(architecture.blocks)} make depth {architecture.depth}, "
            f"but model.arch {name} says {depth}"
        )
    if architecture.block == "basic" and (architecture.cardinality, architecture.base_width) != (1, 64):
        raise InputError(f"model.arch: {name} has basic blocks, which take no cardinality or base width")
