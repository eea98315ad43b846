"""Tables of the ResNeXt and the ResNet paper: published errors, and the recipe that each is to be compared with.

Errors are in per cent. A row is a network under one evaluation, so a line of a paper that has several is several rows
here. `recipes_of` and `paper_table` in paper_tables.py find them by the names of TABLES.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Protocol:
    """How a trained network is evaluated."""

    name: str
    """Ends the name of the folder with the results, as in evaluation_ten_crop; "": training's own evaluation."""
    overrides: tuple[str, ...] = ()
    """What differs from training's own evaluation."""
    classes: int | None = None
    """Classes to choose from; None: all that the network knows."""


TRAINING = Protocol("")
TEN_CROP = Protocol("ten_crop", ("eval.protocol=ten_crop",))
MULTI_SCALE = Protocol("multi_scale", ("eval.protocol=multi_scale",))
CROP_320 = Protocol("320", ("eval.resize=320", "eval.crop=320"))
WAY_1K = Protocol("1k_way", ("eval.classes=/path/to/imagenet/val",), 1000)


@dataclass(frozen=True)
class Row:
    """A network under one evaluation."""

    labels: tuple[str, ...]
    recipe: str | None
    """Name for `--config`; None: another paper's network, for which there is no recipe."""
    errors: str
    """Published errors as the paper prints them, one for each measure of the table, with " / " between; "–": none."""
    protocol: Protocol = TRAINING
    runs: int = 1
    """Runs, each of another seed, that the published number is of."""

    @property
    def published(self) -> tuple[str, ...]:
        """The published error of each measure, as printed; "–": none."""
        return tuple(self.errors.split(" / "))


@dataclass(frozen=True)
class PaperTable:
    """A table of a paper."""

    title: str
    source: str
    caption: str
    """What the numbers are, in the paper's terms."""
    labels: tuple[str, ...]
    """Names of the columns that describe a row."""
    measures: tuple[str, ...]
    rows: tuple[Row, ...]
    note: str = ""
    """What is to be known of rows without a recipe."""


TOP1, TOP5 = "Top-1", "Top-5"
RESNEXT, RESNET = "arXiv 1611.05431", "arXiv 1512.03385"

TABLE_3 = PaperTable(
    title="ResNeXt paper, Table 3: cardinality and width at the same cost, ImageNet-1K",
    source=RESNEXT,
    caption="Error in % of a single 224×224 crop.",
    labels=("Network", "Setting"),
    measures=(TOP1,),
    rows=(
        Row(("ResNet-50", "1×64d"), "resnet50_1x64d", "23.9"),
        Row(("ResNeXt-50", "2×40d"), "resnext50_2x40d", "23.0"),
        Row(("ResNeXt-50", "4×24d"), "resnext50_4x24d", "22.6"),
        Row(("ResNeXt-50", "8×14d"), "resnext50_8x14d", "22.3"),
        Row(("ResNeXt-50", "32×4d"), "resnext50_32x4d", "22.2"),
        Row(("ResNet-101", "1×64d"), "resnet101_1x64d", "22.0"),
        Row(("ResNeXt-101", "2×40d"), "resnext101_2x40d", "21.7"),
        Row(("ResNeXt-101", "4×24d"), "resnext101_4x24d", "21.4"),
        Row(("ResNeXt-101", "8×14d"), "resnext101_8x14d", "21.3"),
        Row(("ResNeXt-101", "32×4d"), "resnext101_32x4d", "21.2"),
    ),
)

TABLE_4 = PaperTable(
    title="ResNeXt paper, Table 4: deeper, wider or more paths at twice the cost, ImageNet-1K",
    source=RESNEXT,
    caption="Error in % of a single 224×224 crop. ResNet-200 is the pre-activation network of fb.resnet.torch.",
    labels=("Network", "Setting"),
    measures=(TOP1, TOP5),
    rows=(
        Row(("ResNet-101", "1×64d"), "resnet101_1x64d", "22.0 / 6.0"),
        Row(("ResNeXt-101", "32×4d"), "resnext101_32x4d", "21.2 / 5.6"),
        Row(("ResNet-200", "1×64d"), "preact_resnet200", "21.7 / 5.8"),
        Row(("ResNet-101, wider", "1×100d"), "resnet101_1x100d", "21.3 / 5.7"),
        Row(("ResNeXt-101", "2×64d"), "resnext101_2x64d", "20.7 / 5.5"),
        Row(("ResNeXt-101", "64×4d"), "resnext101_64x4d", "20.4 / 5.3"),
    ),
)

TABLE_5 = PaperTable(
    title="ResNeXt paper, Table 5: state-of-the-art models, ImageNet-1K",
    source=RESNEXT,
    caption="Error in % of a single crop. ResNet-200 is the pre-activation network of fb.resnet.torch.",
    labels=("Network", "Crop"),
    measures=(TOP1, TOP5),
    rows=(
        Row(("ResNet-101", "224×224"), "resnet101_1x64d", "22.0 / 6.0"),
        Row(("ResNet-200", "224×224"), "preact_resnet200", "21.7 / 5.8"),
        Row(("ResNet-200", "320×320"), "preact_resnet200", "20.1 / 4.8", CROP_320),
        Row(("Inception-v3", "299×299"), "inception_v3", "21.2 / 5.6"),
        Row(("Inception-v4", "299×299"), "inception_v4", "20.0 / 5.0"),
        Row(("Inception-ResNet-v2", "299×299"), "inception_resnet_v2", "19.9 / 4.9"),
        Row(("ResNeXt-101, 64×4d", "224×224"), "resnext101_64x4d", "20.4 / 5.3"),
        Row(("ResNeXt-101, 64×4d", "320×320"), "resnext101_64x4d", "19.1 / 4.4", CROP_320),
    ),
)

TABLE_6 = PaperTable(
    title="ResNeXt paper, Table 6: trained on ImageNet-5K",
    source=RESNEXT,
    caption="Error in % of a single 224×224 crop of ImageNet-1K's validation images, which are classified among all "
    "5000 classes (5K-way) or among ImageNet-1K's alone (1K-way).",
    labels=("Network", "Setting", "Classes"),
    measures=(TOP1, TOP5),
    rows=(
        Row(("ResNet-50", "1×64d", "5K-way"), "imagenet5k/resnet50", "45.5 / 19.4"),
        Row(("ResNet-50", "1×64d", "1K-way"), "imagenet5k/resnet50", "27.1 / 8.2", WAY_1K),
        Row(("ResNeXt-50", "32×4d", "5K-way"), "imagenet5k/resnext50_32x4d", "42.3 / 16.8"),
        Row(("ResNeXt-50", "32×4d", "1K-way"), "imagenet5k/resnext50_32x4d", "24.4 / 6.6", WAY_1K),
        Row(("ResNet-101", "1×64d", "5K-way"), "imagenet5k/resnet101", "42.4 / 16.9"),
        Row(("ResNet-101", "1×64d", "1K-way"), "imagenet5k/resnet101", "24.2 / 6.8", WAY_1K),
        Row(("ResNeXt-101", "32×4d", "5K-way"), "imagenet5k/resnext101_32x4d", "40.1 / 15.1"),
        Row(("ResNeXt-101", "32×4d", "1K-way"), "imagenet5k/resnext101_32x4d", "22.2 / 5.7", WAY_1K),
    ),
)

TABLE_7 = PaperTable(
    title="ResNeXt paper, Table 7: CIFAR",
    source=RESNEXT,
    caption="Test error in %, the mean of 10 runs.",
    labels=("Network", "Parameters", "Images"),
    measures=(TOP1,),
    rows=(
        Row(("Wide ResNet", "36.5 M", "CIFAR-10"), None, "4.17"),
        Row(("ResNeXt-29, 8×64d", "34.4 M", "CIFAR-10"), "cifar/resnext29_8x64d", "3.65", runs=10),
        Row(("ResNeXt-29, 16×64d", "68.1 M", "CIFAR-10"), "cifar/resnext29_16x64d", "3.58", runs=10),
        Row(("Wide ResNet", "36.5 M", "CIFAR-100"), None, "20.50"),
        Row(("ResNeXt-29, 8×64d", "34.4 M", "CIFAR-100"), "cifar/resnext29_8x64d_cifar100", "17.77", runs=10),
        Row(("ResNeXt-29, 16×64d", "68.1 M", "CIFAR-100"), "cifar/resnext29_16x64d_cifar100", "17.31", runs=10),
    ),
    note="Wide ResNet is another paper's network (arXiv 1605.07146), for which there is no recipe.",
)

RESIDUAL = PaperTable(
    title="ResNeXt paper, section 5.1: with and without shortcuts, ImageNet-1K",
    source=RESNEXT,
    caption="Error in % of a single 224×224 crop.",
    labels=("Network", "Setting", "Shortcuts"),
    measures=(TOP1,),
    rows=(
        Row(("ResNet-50", "1×64d", "with"), "resnet50_1x64d", "23.9"),
        Row(("ResNet-50", "1×64d", "without"), "resnet50_nonresidual", "31.2"),
        Row(("ResNeXt-50", "32×4d", "with"), "resnext50_32x4d", "22.2"),
        Row(("ResNeXt-50", "32×4d", "without"), "resnext50_32x4d_nonresidual", "26.1"),
    ),
)

RESNET_2 = PaperTable(
    title="ResNet paper, Table 2: plain and residual networks, ImageNet-1K",
    source=RESNET,
    caption="Error in %, 10 crops averaged. The residual networks have shortcuts A.",
    labels=("Layers", "Network"),
    measures=(TOP1,),
    rows=(
        Row(("18", "plain"), "plain18", "27.94", TEN_CROP),
        Row(("18", "ResNet"), "resnet18_shortcut_a", "27.88", TEN_CROP),
        Row(("34", "plain"), "plain34", "28.54", TEN_CROP),
        Row(("34", "ResNet"), "resnet34_shortcut_a", "25.03", TEN_CROP),
    ),
)

RESNET_3 = PaperTable(
    title="ResNet paper, Table 3: shortcuts and depth, ImageNet-1K",
    source=RESNET,
    caption="Error in %, 10 crops averaged. ResNet-50, -101 and -152 have shortcuts B.",
    labels=("Network",),
    measures=(TOP1, TOP5),
    rows=(
        Row(("VGG-16",), None, "28.07 / 9.33"),
        Row(("GoogLeNet",), None, "– / 9.15"),
        Row(("PReLU-net",), None, "24.27 / 7.38"),
        Row(("plain-34",), "plain34", "28.54 / 10.02", TEN_CROP),
        Row(("ResNet-34 A",), "resnet34_shortcut_a", "25.03 / 7.76", TEN_CROP),
        Row(("ResNet-34 B",), "resnet34_shortcut_b", "24.52 / 7.46", TEN_CROP),
        Row(("ResNet-34 C",), "resnet34_shortcut_c", "24.19 / 7.40", TEN_CROP),
        Row(("ResNet-50",), "resnet50_shortcut_b", "22.85 / 6.71", TEN_CROP),
        Row(("ResNet-101",), "resnet101_shortcut_b", "21.75 / 6.05", TEN_CROP),
        Row(("ResNet-152",), "resnet152_shortcut_b", "21.43 / 5.71", TEN_CROP),
    ),
    note="VGG-16, GoogLeNet and PReLU-net are other papers' networks; the shipped VGG-16 and GoogLeNet have BN and "
    "another training.",
)

RESNET_4 = PaperTable(
    title="ResNet paper, Table 4: single models, ImageNet-1K",
    source=RESNET,
    caption="Error in %, of the ResNets whole images at five scales averaged, here with their mirror images; of others "
    "by their own protocols, of VGG (ILSVRC'14) on the test set. ResNet-50, -101 and -152 have shortcuts B.",
    labels=("Network",),
    measures=(TOP1, TOP5),
    rows=(
        Row(("VGG (ILSVRC'14)",), None, "– / 8.43"),
        Row(("GoogLeNet (ILSVRC'14)",), None, "– / 7.89"),
        Row(("VGG (v5)",), None, "24.4 / 7.1"),
        Row(("PReLU-net",), None, "21.59 / 5.71"),
        Row(("BN-inception",), None, "21.99 / 5.81"),
        Row(("ResNet-34 B",), "resnet34_shortcut_b", "21.84 / 5.71", MULTI_SCALE),
        Row(("ResNet-34 C",), "resnet34_shortcut_c", "21.53 / 5.60", MULTI_SCALE),
        Row(("ResNet-50",), "resnet50_shortcut_b", "20.74 / 5.25", MULTI_SCALE),
        Row(("ResNet-101",), "resnet101_shortcut_b", "19.87 / 4.60", MULTI_SCALE),
        Row(("ResNet-152",), "resnet152_shortcut_b", "19.38 / 4.49", MULTI_SCALE),
    ),
    note="VGG, GoogLeNet, PReLU-net and BN-inception are other papers' networks, without a recipe of that training.",
)

RESNET_6 = PaperTable(
    title="ResNet paper, Table 6: CIFAR-10",
    source=RESNET,
    caption="Test error in %, of ResNet-110 the best of 5 runs, and their mean and standard deviation in brackets.",
    labels=("Network", "Layers", "Parameters"),
    measures=(TOP1,),
    rows=(
        Row(("Maxout", "", ""), None, "9.38"),
        Row(("NIN", "", ""), None, "8.81"),
        Row(("DSN", "", ""), None, "8.22"),
        Row(("FitNet", "19", "2.5 M"), None, "8.39"),
        Row(("Highway", "19", "2.3 M"), None, "7.54 (7.72±0.16)"),
        Row(("Highway", "32", "1.25 M"), None, "8.80"),
        Row(("ResNet", "20", "0.27 M"), "cifar/resnet20", "8.75"),
        Row(("ResNet", "32", "0.46 M"), "cifar/resnet32", "7.51"),
        Row(("ResNet", "44", "0.66 M"), "cifar/resnet44", "7.17"),
        Row(("ResNet", "56", "0.85 M"), "cifar/resnet56", "6.97"),
        Row(("ResNet", "110", "1.7 M"), "cifar/resnet110", "6.43 (6.61±0.16)", runs=5),
        Row(("ResNet", "1202", "19.4 M"), "cifar/resnet1202", "7.93"),
    ),
    note="Maxout, NIN, DSN, FitNet and Highway are other papers' networks, for which there are no recipes.",
)

TABLES: Mapping[str, PaperTable] = {
    "3": TABLE_3,
    "4": TABLE_4,
    "5": TABLE_5,
    "6": TABLE_6,
    "7": TABLE_7,
    "residual": RESIDUAL,
    "resnet-2": RESNET_2,
    "resnet-3": RESNET_3,
    "resnet-4": RESNET_4,
    "resnet-6": RESNET_6,
}
"""By the name for `--table`."""
