"""`resnext info`: list the shipped networks, describe one, and find the width that matches a cardinality."""

from __future__ import annotations

from resnext_train.cli.requests import InfoRequest
from resnext_train.cli.run_command import announce
from resnext_train.config import (
    Entry,
    ModelSection,
    catalogue,
    deviation_lines,
    deviations,
    read_entry,
    reference_of,
)
from resnext_train.errors import InputError, MissingLibraryError
from resnext_train.models.architecture import (
    Architecture,
    architecture_of,
    block_weights,
    library_of,
    matched_section,
    shape_of,
    title_of,
)
from resnext_train.models.complexity import Complexity, Part, measure


def info(request: InfoRequest) -> None:
    """Print what is asked for."""
    if request.network is None:
        _list()
    elif request.cardinalities:
        _match(request, request.network)
    else:
        _describe(request, request.network)


def _list() -> None:
    entries = list(catalogue())
    width = max(len(entry.name) for entry in entries)
    costs = f"{'parameters':>14s}{'multiply-adds':>15s}"
    announce(f"{'recipe':{width}s}{costs}    published error or accuracy, or what to expect")
    for entry in entries:
        try:
            size = measure(entry.recipe.model, entry.classes or 1000, entry.recipe.eval.crop)
            costs = f"{size.parameters:14,d}{size.multiply_adds / 1e9:11.2f} G   "
        except MissingLibraryError:
            costs = f"{'needs timm':>27s}     "
        announce(f"{entry.name:{width}s}{costs} {entry.result.partition(' (')[0].rstrip('.')}")


def _describe(request: InfoRequest, section: ModelSection) -> None:
    architecture = None if library_of(section) else architecture_of(section)
    entry = read_entry(request.config) if request.config else None
    named = [e for e in ([entry] if entry else catalogue()) if _same(e.recipe.model, section)]
    shown = entry or next(iter(named), None)
    size = request.size or (shown.recipe.eval.crop if shown else architecture.image_size if architecture else 224)
    stated = section.num_classes if section.num_classes != "auto" else entry and entry.classes
    classes = request.classes or stated or _classes(architecture)
    print(_table(section, measure(section, classes, size), classes, architecture))
    for known in named:
        if known.result and known.recipe.eval.crop == size and known.classes == classes:
            announce(f"{known.name}: {known.reproduces} {known.result}")
    if entry:
        _list_deviations(entry)


def _list_deviations(entry: Entry) -> None:
    """Print where a recipe departs from the paper or code that it names."""
    reference = reference_of(entry.recipe)
    announce()
    if reference is None:
        announce("the recipe names no paper or code to be compared with (train.reference)")
        return
    for line in deviation_lines(deviations(entry.recipe), reference):
        announce(line)


def _classes(architecture: Architecture | None) -> int:
    """Return the class count of the data set that a network is meant for: CIFAR-10 or ImageNet-1K."""
    return 10 if architecture and len(architecture.blocks) == 3 else 1000


def _same(one: ModelSection, other: ModelSection) -> bool:
    """Return whether two sections describe the same network, whatever its classes and how it is trained."""
    return shape_of(one.model_copy(update={"num_classes": other.num_classes})) == shape_of(other)


def _table(section: ModelSection, complexity: Complexity, classes: int, architecture: Architecture | None) -> str:
    """Return the stages with their costs, like Table 1 of the ResNeXt paper; BN counts with the row before it."""
    auxiliary = complexity.auxiliary_parameters
    size = complexity.size
    lines = [
        f"{title_of(section)}, {classes} classes",
        f"parameters     {complexity.parameters:,}"
        + (f", of which {auxiliary:,} in auxiliary classifiers that only training uses" if auxiliary else ""),
        f"multiply-adds  {complexity.multiply_adds:,} ({complexity.multiply_adds / 1e9:.2f} G) at {size} × {size}"
        + (", blurs included" if architecture and architecture.blur_pool else ""),
        "",
        f"{'stage':14s}{'output':>18s}{'parameters':>14s}{'multiply-adds':>16s}   layers",
    ]
    rows: list[tuple[Part, int]] = []
    for part in complexity.parts:
        if architecture and part.name in ("bn1", "relu", "bn2"):
            before, parameters = rows.pop()
            rows.append((before, parameters + part.parameters))
        else:
            rows.append((part, part.parameters))
    for part, parameters in rows:
        output = "training only" if part.training_only else " × ".join(str(n) for n in part.output)
        layers = _layers(architecture, part.name) if architecture else ""
        lines.append(f"{part.name:14s}{output:>18s}{parameters:14,d}{part.multiply_adds:16,d}   {layers}".rstrip())
    return "\n".join(lines)


def _layers(a: Architecture, name: str) -> str:
    """Return the layers of a row of the table in the paper's notation."""
    fixed = {
        "conv1": f"7×7, {a.stem_width}, stride 2" if a.stem == "imagenet" else f"3×3, {a.stem_width}",
        "maxpool": "3×3 max pool, stride 2",
        "avgpool": "global average pool",
        "fc": "fully connected",
    }
    if name in fixed:
        return fixed[name]
    stage = int(name.removeprefix("layer")) - 1
    inner, outer, blocks, c = a.inner_width(stage), a.outer_width(stage), a.blocks[stage], a.cardinality
    more = "" if a.residual else ", no shortcuts"
    if a.blur_pool and stage > 0:
        more += ", blur before stride 2"
    if a.block == "basic":
        return f"[3×3, {outer}; 3×3, {outer}] × {blocks}{more}"
    path = f"1×1, {inner // c}; 3×3, {inner // c}"
    block = {
        "a": f"[{c} paths of (1×1, {inner // c}; 3×3, {inner // c}; 1×1, {outer}), summed]",
        "b": f"[{c} paths of ({path}), concatenated; 1×1, {outer}]",
        "c": f"[1×1, {inner}; 3×3, {inner}{f', C={c}' if c > 1 else ''}; 1×1, {outer}]",
    }[a.form]
    return f"{block} × {blocks}{more}"


def _match(request: InfoRequest, section: ModelSection) -> None:
    """Print Table 2 of the ResNeXt paper for any bottleneck network."""
    reference = _reference(request.name, section)
    size = request.size or reference.image_size
    classes = request.classes or _classes(reference)
    print(f"widths nearest in complexity to {request.name} (ResNeXt paper, equation 4 and Table 2)")
    columns = f"{'C':>4s}{'d':>5s}{'C·d':>6s}{'block weights':>15s}{'parameters':>14s}{'multiply-adds':>15s}"
    print(columns + "   network")
    for cardinality in request.cardinalities:
        matched = matched_section(section, cardinality)
        a, cost = architecture_of(matched), measure(matched, classes, size)
        print(
            f"{cardinality:4d}{a.base_width:5d}{a.inner_width(0):6d}"
            f"{block_weights(reference, cardinality, a.base_width):15,d}{cost.parameters:14,d}"
            f"{cost.multiply_adds / 1e9:13.2f} G   {matched.arch}{'' if a.residual else ' model.residual=false'}"
        )


def _reference(name: str, section: ModelSection) -> Architecture:
    """Return the network of --match; raises InputError if it has no bottlenecks."""
    if library_of(section):
        raise InputError(f"--match: {name} is another library's; give a ResNet or ResNeXt")
    reference = architecture_of(section)
    if reference.block == "basic":
        raise InputError(
            f"--match: {name} has two-layer blocks, for which cardinality is the same as width "
            "(ResNeXt paper, Figure 4); give a network with bottlenecks, such as resnet50"
        )
    return reference
