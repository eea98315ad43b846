"""Format the result as plain text, 100 columns wide."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from resnext_train.bench.bench_results import STAGES, References, Result
from resnext_train.bench.gpu_rates import CROP, NETWORKS, Need
from resnext_train.bench.interleaved_timing import Rate
from resnext_train.bench.reference_pipelines import IO_COLOUR, PILLOW, PILLOW_COLOUR, TITLES
from resnext_train.errors import printable


def report(result: Result) -> str:
    """Return all tables with their explanations."""
    parts = [_images(result), *result.notes, "", _per_core(result), "", _in_all(result), ""]
    if result.references:
        parts += [_references(result.references), "", _ratios(result.references), ""]
    return "\n".join([*parts, _gpus(result.gpus, result.measured.crop)])


def table(head: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """Align columns, the first `left` of them to the left; a heading may have several lines."""
    heads = [cell.split("\n") for cell in head]
    depth = max(map(len, heads))
    above = [[""] * (depth - len(cell)) + cell for cell in heads]
    grid = [*zip(*above, strict=True), *rows]
    widths = [max(map(len, column)) for column in zip(*grid, strict=True)]
    return "\n".join(_line(row, widths, left) for row in grid)


def _line(row: Sequence[str], widths: Sequence[int], left: int) -> str:
    cells = zip(row, widths, strict=True)
    return "  ".join(cell.ljust(w) if c < left else cell.rjust(w) for c, (cell, w) in enumerate(cells)).rstrip()


def _images(result: Result) -> str:
    m = result.measured
    where = printable(f"{m.where} ({m.storage})") if m.where else "in memory"
    passes = "1 pass" if m.rounds == 1 else f"{m.rounds} passes in turns"
    left_out = f"; {m.unreadable} left out, because they cannot be read" if m.unreadable else ""
    return (
        f"images: {where}\n"
        f"sample: {m.files:,} different ones, {m.width:.0f} × {m.height:.0f} pixels on average{left_out}\n"
        f"a pass: {m.images:,} images in micro-batches of {m.group}; median of {passes}, lowest-highest"
    )


def _rate(rate: Rate) -> tuple[str, str]:
    return _number(rate.median), f"{_number(rate.lowest)}-{_number(rate.highest)}"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def _per_core(result: Result) -> str:
    head = ["tier", "uint8", "", "float", "", *(stage.replace("_", "\n") for stage in STAGES), "bytes/\nimage"]
    rows = [
        [
            tier,
            *_rate(core.uint8),
            *_rate(core.normalised),
            *(f"{core.stages[stage]:.0f}" for stage in STAGES),
            "-" if core.bytes_per_image is None else f"{core.bytes_per_image:,.0f}",
        ]
        for tier, core in result.per_core.items()
    ]
    return (
        "images/s per core: one process with one thread, files in the system's cache; float: with colours and\n"
        "normalised. From read to hand over: µs per image; these rates do not include the hand-over\n"
        + table(head, rows)
    )


def _in_all(result: Result) -> str:
    processes = f"{result.workers} loader process{'' if result.workers == 1 else 'es'}"
    who = processes if result.workers else "the training process itself (data.workers=0)"
    head, rows = ["tier", "images/s", ""], [[tier, *_rate(found.rate)] for tier, found in result.in_all.items()]
    if result.workers > 1:
        head += ["one process\nimages/s", "", "scaling"]
        for row, found in zip(rows, result.in_all.values(), strict=True):
            assert found.one_process is not None
            row += [*_rate(found.one_process), f"× {found.scaling:.2f}"]
    return f"in all: uint8 micro-batches from {who}; {result.cores} usable cores\n" + table(head, rows)


def _references(references: References) -> str:
    rows = [[TITLES[name], *_rate(rate), *_rate(references.in_all[name])] for name, rate in references.per_core.items()]
    return (
        "torchvision's usual pipelines on the same files, in turns with ours, with as many processes;\n"
        "normalised floats, bilinear (torchvision's default); per core without collating them into batches\n"
        + table(["", "per core\nimages/s", "", "in all\nimages/s", ""], rows)
    )


def _ratios(references: References) -> str:
    names = (PILLOW, PILLOW_COLOUR, IO_COLOUR)
    per_core, in_all = references.ratios_per_core, references.ratios_in_all
    rows = [[tier, *(f"× {r[tier][name]:.2f}" for r in (per_core, in_all) for name in names)] for tier in per_core]
    head = [
        f"{scope}\n{ours} /\n{theirs}"
        for scope, colour in (("per core", "float"), ("in all", "uint8"))
        for ours, theirs in (
            ("uint8", "Pillow\n"),
            (colour, "Pillow\n+ ColorJitter"),
            (colour, "torchvision.io\n+ ColorJitter"),
        )
    ]
    return "ours over theirs, medians; in all, ours leaves colours and normalisation to the device\n" + table(
        ["tier", *head], rows
    )


def _gpus(needed: Sequence[Need], crop: int) -> str:
    tiers = list(needed[0].cores)
    rows = list(_need_rows(needed, tiers))
    head = ["host", "network", "images/s", *(f"{tier} " for tier in tiers)]
    other = "" if crop == CROP else f"Mind that the crops measured here are of {crop}.\n"
    return (
        "loader cores of this kind that feed a host of eight GPUs (*: this machine, as measured in all,\n"
        f"feeds it). The hosts' rates are published estimates for mixed precision and crops of {CROP}, not\n"
        "measured here; a loader core makes uint8 images and hands them over.\n" + other + table(head, rows, left=2)
    )


def _need_rows(needed: Sequence[Need], tiers: Sequence[str]) -> Iterator[list[str]]:
    for need in needed:
        cores = (f"{need.cores[tier]:,}{'*' if tier in need.fed_by else ' '}" for tier in tiers)
        yield [need.host if need.network == NETWORKS[0] else "", need.network, f"{need.images_per_s:,}", *cores]
