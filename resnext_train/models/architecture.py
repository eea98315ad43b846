"""Parse a network's name and hyper-parameters. Imports no torch, so a wrong name fails immediately.

Names are those of the papers: resnetDEPTH, plainDEPTH (no shortcuts), resnextDEPTH_CxDd (also resnetDEPTH_CxDd, for
C = 1), wide_resnet50_2, wide_resnet101_2. `preact_` before a name means pre-activation blocks. A depth with customary
blocks for ImageNet means that network. Otherwise a depth of 6n + 2 (9n + 2 if the name has a cardinality) means the
three stages of the papers' CIFAR networks, and so does `cifar_` before any name.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from resnext_train.config import LoadedRecipe, ModelSection, nearest_names, shipped_names
from resnext_train.errors import InputError

Block = Literal["basic", "bottleneck"]
Shortcut = Literal["A", "B", "C"]
Form = Literal["a", "b", "c"]
Stem = Literal["imagenet", "cifar"]
Fan = Literal["fan_out", "fan_in"]

_BASIC_BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}
_BOTTLENECK_BLOCKS = {
    14: (1, 1, 1, 1),
    26: (2, 2, 2, 2),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
    200: (3, 24, 36, 3),
}
_LAYERS = {"basic": 2, "bottleneck": 3}
"""Convolutions per block."""

_DEEPEST, _WIDEST = 2_000, 100_000
"""Limits of layers and channels; a larger number in a recipe is surely a mistake."""

_NAME = re.compile(
    r"(?P<preact>preact_)?(?P<cifar>cifar_)?"
    r"(?:(?P<wide>wide_)?resnet(?P<resnet>N)(?P<two>_2)?|plain(?P<plain>N)|"
    r"resne(?:xt|t)(?P<grouped>N)_(?P<cardinality>N)x(?P<base_width>N)d)".replace("N", "[1-9][0-9]{0,8}")
)


@dataclass(frozen=True)
class TrainingOptions:
    """Options of a network that only training uses: in evaluation, networks that differ in them compute the same.

    `stochastic_depth` is the last block's probability to be skipped, which grows linearly from 0 in the first block.
    `zero_gamma`: the last BN of each block starts with scale 0. `conv_init` is the fan of the first weights' variance.
    """

    stochastic_depth: float = 0.0
    zero_gamma: bool = False
    conv_init: Fan = "fan_out"
    bn_momentum: float = 0.1


@dataclass(frozen=True)
class Architecture:
    """A residual network of four stages (ImageNet) or three (CIFAR), or its plain counterpart.

    `blocks` counts the blocks of each stage. `cardinality` (C) is the number of groups of a bottleneck's 3×3
    convolution and `base_width` (d) the width of one group in the first stage (ResNeXt paper, section 3.3); a ResNet
    has C = 1 and d = 64. `width` multiplies the channels of the stem and of all stages. `preactivation` is the order
    of layers of "Identity Mappings in Deep Residual Networks" (arXiv 1603.05027). `blur_pool`: strided convolutions of
    16 and more input channels see a blurred input.
    """

    block: Block
    blocks: tuple[int, ...]
    cardinality: int = 1
    base_width: int = 64
    width: float = 1.0
    shortcut: Shortcut = "B"
    form: Form = "c"
    stem: Stem = "imagenet"
    residual: bool = True
    preactivation: bool = False
    blur_pool: bool = False
    bn_epsilon: float = 1e-5
    training: TrainingOptions = TrainingOptions()

    @property
    def depth(self) -> int:
        """Convolutions on the longest path plus the classifier, as the papers count them."""
        return sum(self.blocks) * _LAYERS[self.block] + 2

    @property
    def expansion(self) -> int:
        """Ratio of a block's output channels to its stage's width."""
        return 1 if self.block == "basic" else 4

    @property
    def stem_width(self) -> int:
        """Channels of the stem and of the first stage, before cardinality and base width (ResNet paper, Table 1)."""
        return int((16 if len(self.blocks) == 3 and self.block == "basic" else 64) * self.width)

    @property
    def reduction(self) -> int:
        """Factor from the last stage's height and width to the image's."""
        return (4 if self.stem == "imagenet" else 1) << (len(self.blocks) - 1)

    @property
    def image_size(self) -> int:
        """Height and width in pixels of the papers' input images."""
        return 224 if self.stem == "imagenet" else 32

    def inner_width(self, stage: int) -> int:
        """Return the channels of the 3×3 convolution in a stage (from 0): C·d in the first, doubled in each next one.

        Fractions of a group's width are rounded down, as in torchvision.
        """
        group = int(self.stem_width * (1 << stage) * self.base_width / 64)
        return group * self.cardinality

    def outer_width(self, stage: int) -> int:
        """Return the output channels of a stage (from 0)."""
        return self.stem_width * (1 << stage) * self.expansion


def library_of(section: ModelSection) -> tuple[str, str] | None:
    """Return library and name if model.arch is `torchvision/NAME` or `timm/NAME`, else None.

    Raises:
        InputError: another library, or hyper-parameters, which these networks take only as part of their names.
    """
    library, slash, name = section.arch.partition("/")
    if not slash:
        return None
    if library not in ("torchvision", "timm"):
        raise InputError(
            f"model.arch: unknown library {library[:60]!r} in {section.arch[:60]!r}; use torchvision/NAME or timm/NAME"
        )
    changed = _hyper_parameters(section)
    if changed:
        raise InputError(
            f"model.{changed[0]}: {section.arch} is {library}'s and takes no such hyper-parameter; remove it"
        )
    return library, name


def title_of(section: ModelSection) -> str:
    """Return the network's name and the hyper-parameters that override what the name says."""
    return ", ".join([section.arch, *(f"{key} {getattr(section, key)}" for key in _hyper_parameters(section))])


def _hyper_parameters(section: ModelSection) -> list[str]:
    """Return the keys that are set and override the name."""
    others = {"arch", "num_classes", "weights", "auxiliary_weight"}
    return [k for k, f in ModelSection.model_fields.items() if k not in others and getattr(section, k) != f.default]


_SHAPELESS = ("weights", "stochastic_depth", "zero_gamma", "conv_init", "bn_momentum", "bn_epsilon")
"""Keys of a network that add and change no layer."""


def shape_of(section: ModelSection) -> ModelSection:
    """Return the section without the keys that add and change no layer, so that equal networks have equal sections."""
    keys = ("weights",) if "/" in section.arch else _SHAPELESS  # other libraries' networks refuse the others
    return section.model_copy(update={key: ModelSection.model_fields[key].default for key in keys})


def check_model(section: ModelSection) -> None:
    """Raise InputError if a model section is wrong; imports no torch."""
    if library_of(section) is None:
        architecture_of(section)
        if section.auxiliary_weight is not None:
            raise InputError(f"model.auxiliary_weight: {section.arch} has no auxiliary classifiers; remove it")


def check_network(loaded: LoadedRecipe) -> None:
    """Check a recipe's network, and what training asks of it; a mistake gets the place in the recipe that it is in.

    Raises:
        InputError: see `check_model`; or another library's network with train.checkpoint_activations.
    """
    section = loaded.recipe.model
    try:
        check_model(section)
        if loaded.recipe.train.checkpoint_activations and library_of(section):
            raise InputError(
                f"train.checkpoint_activations: {section.arch} is another library's, whose activations are all kept; "
                "set it to false"
            )
    except InputError as error:
        key = re.match(r"(model|train)\.\w+(?=: )", str(error))
        raise InputError(f"{loaded.place(key[0])}: {error}" if key else str(error)) from error


def architecture_of(section: ModelSection) -> Architecture:
    """Return the architecture of a model section: that of its name, overridden by the other keys.

    Raises:
        InputError: an unknown name, a depth without customary blocks, or hyper-parameters that do not fit.
    """
    name = section.arch
    match = _NAME.fullmatch(name)
    if not match or (match["wide"] is None) != (match["two"] is None):
        raise InputError(f"model.arch: unknown network {name[:100]!r}; {_hint(name)}")
    if section.width > _WIDEST:
        raise InputError(f"model.width: {section.width:g} times the channels of {name} are too many; make it smaller")
    depth = section.depth or int(match["resnet"] or match["plain"] or match["grouped"])
    block, blocks = _blocks(section, depth, grouped=match["grouped"] is not None, cifar=match["cifar"] is not None)
    cifar = len(blocks) == 3
    architecture = Architecture(
        block,
        blocks,
        section.cardinality or int(match["cardinality"] or 1),
        section.base_width or int(match["base_width"] or (128 if match["wide"] else 64)),
        section.width,
        section.shortcut or ("A" if cifar and block == "basic" else "B"),
        section.form,
        section.stem or ("cifar" if cifar else "imagenet"),
        section.residual if section.residual is not None else match["plain"] is None,
        match["preact"] is not None,
        section.blur_pool,
        section.bn_epsilon,
        TrainingOptions(section.stochastic_depth, section.zero_gamma, section.conv_init, section.bn_momentum),
    )
    _check(name, architecture, section)
    return architecture


def _hint(name: str) -> str:
    """Return which network may be meant by an unknown name."""
    near = nearest_names(name[:100], [k for k in shipped_names() if _NAME.fullmatch(k.rpartition("/")[2])])
    if near:
        return f"did you mean {' or '.join(k.rpartition('/')[2] for k in near)}?"
    return (
        "use a name such as resnet50, resnext50_32x4d, plain34, preact_resnet200, resnet110 (CIFAR), "
        "torchvision/vgg16_bn or timm/NAME; `resnext info` lists the shipped recipes"
    )


def _blocks(section: ModelSection, depth: int, grouped: bool, cifar: bool) -> tuple[Block, tuple[int, ...]]:
    """Return kind and numbers of blocks for a depth; `grouped`: the name has a cardinality, as only bottlenecks do."""
    kinds: tuple[Block, ...] = ("bottleneck",) if grouped else ("basic", "bottleneck")
    if section.blocks:
        fitting = [k for k in kinds if sum(section.blocks) * _LAYERS[k] + 2 == depth]
        if not fitting:
            depths = " or ".join(str(sum(section.blocks) * _LAYERS[k] + 2) for k in kinds)
            raise InputError(
                f"model.blocks: {list(section.blocks)} make depth {depths}, but model.arch {section.arch} says {depth}"
            )
        return fitting[0], section.blocks
    customary = {k: {"basic": _BASIC_BLOCKS, "bottleneck": _BOTTLENECK_BLOCKS}[k] for k in kinds}
    for kind in () if cifar else kinds:
        if depth in customary[kind]:
            return kind, customary[kind][depth]
    in_three_stages, over = divmod(depth - 2, 3 * _LAYERS[kinds[0]])
    if not over and in_three_stages:
        return kinds[0], (in_three_stages,) * 3
    known = ", ".join(str(d) for d in sorted({d for k in kinds for d in customary[k]}))
    raise InputError(
        f"model.arch: no customary blocks for depth {depth} in {section.arch} (known: {known}; for CIFAR "
        f"{3 * _LAYERS[kinds[0]]}n + 2); state model.blocks, such as [3, 4, 6, 3]"
    )


def _check(name: str, architecture: Architecture, section: ModelSection) -> None:
    a = architecture
    if not a.residual:
        for key, needs_them in (
            ("shortcut", section.shortcut is not None),
            ("stochastic_depth", a.training.stochastic_depth > 0),
            ("zero_gamma", a.training.zero_gamma),
        ):
            if needs_them:
                raise InputError(f"model.{key}: {name} has no shortcuts here; remove it, or set model.residual to true")
    if a.preactivation and a.training.zero_gamma:
        raise InputError(f"model.zero_gamma: blocks of {name} end with a convolution, not with BN; remove it")
    widest = max(a.outer_width(len(a.blocks) - 1), a.inner_width(len(a.blocks) - 1))
    if a.depth > _DEEPEST or widest > _WIDEST:
        raise InputError(
            f"model.arch: {name} would have {a.depth} layers of up to {widest} channels; at most {_DEEPEST} and "
            f"{_WIDEST} are built"
        )
    if a.block == "basic" and (a.cardinality, a.base_width, a.form) != (1, 64, "c"):
        raise InputError(
            f"model.arch: {name} has two-layer blocks, which take no cardinality, base width or form: their paths are "
            "one wide dense block (ResNeXt paper, Figure 4); use model.width"
        )
    if a.preactivation and a.form != "c":
        raise InputError(f"model.form: {a.form} is a form of post-activation blocks; {name} is computed in form c")
    if a.stem_width < 1 or (a.block == "bottleneck" and a.inner_width(0) < 1):
        raise InputError(f"model.width: {a.width:g} leaves {name} without channels; make it larger")


def block_weights(reference: Architecture, cardinality: int, base_width: int) -> int:
    """Count a bottleneck's weights in the reference's first stage: C·(256·d + 3·3·d·d + d·256).

    This is equation 4 of the ResNeXt paper; 256 stands for the stage's output width.
    """
    return cardinality * (2 * reference.outer_width(0) * base_width + 9 * base_width**2)


def matching_base_width(reference: Architecture, cardinality: int) -> int:
    """Return the base width d whose block of `cardinality` C costs nearest to the reference's (paper: Table 2)."""
    c = reference.cardinality
    target = block_weights(reference, c, reference.inner_width(0) // c)
    largest = target // (2 * reference.outer_width(0)) + 1
    return min(range(1, largest + 1), key=lambda d: abs(block_weights(reference, cardinality, d) - target))


def matched_section(section: ModelSection, cardinality: int) -> ModelSection:
    """Return `section`'s network at another cardinality and the matching base width, with both in its name."""
    match = _NAME.fullmatch(section.arch)
    assert match
    reference = architecture_of(section)
    d = matching_base_width(reference, cardinality)
    cifar = "cifar_" if len(reference.blocks) == 3 and reference.depth in _BOTTLENECK_BLOCKS else ""
    kind = "resnext" if cardinality > 1 else "resnet"
    name = f"{match['preact'] or ''}{cifar}{kind}{reference.depth}_{cardinality}x{d}d"
    return ModelSection(arch=name, residual=None if reference.residual else False)
