"""Format the result as plain text, 100 columns wide."""

from __future__ import annotations

from collections.abc import Sequence

from resnext_train.bench.bench_data import COMPARED, Result
from resnext_train.bench.interleaved_timing import Rate
from resnext_train.bench.timed_pipelines import REFERENCES
from resnext_train.errors import printable

GPU_RATES = "To size a host, divide the images/s of its GPUs (docs/gpu-rates.md) by those of a loader core."


def report(result: Result) -> str:
    """Return all tables with their explanations."""
    tables = [_per_core(result), _in_all(result), *(_references(result) if result["references"] else [])]
    return "\n".join([_images(result), *result["notes"], "", *(f"{text}\n" for text in tables), GPU_RATES])


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Align columns, the first to the left, all others to the right; a heading may have several lines."""
    heads = [cell.split("\n") for cell in head]
    depth = max(map(len, heads))
    grid = [*zip(*([""] * (depth - len(cell)) + cell for cell in heads), strict=True), *rows]
    widths = [max(map(len, column)) for column in zip(*grid, strict=True)]
    lines = [[row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])] for row in grid]
    return "\n".join("  ".join(line).rstrip() for line in lines)


def _images(result: Result) -> str:
    m = result["measured"]
    where = printable(f"{m['where']} ({m['storage']})") if m["where"] else "in memory"
    passes = "1 pass" if m["rounds"] == 1 else f"{m['rounds']} passes in turns"
    left_out = f"; {m['unreadable']} left out, because they cannot be read" if m["unreadable"] else ""
    return (
        f"images: {where}\n"
        f"sample: {m['files']:,} different ones, {m['width']:.0f} × {m['height']:.0f} pixels on average{left_out}\n"
        f"a pass: {m['images']:,} images in micro-batches of {m['group']}; median of {passes}, lowest-highest\n"
        f"crops: {m['crop']} × {m['crop']} pixels"
    )


def _rate(rate: Rate) -> tuple[str, str]:
    return _number(rate["median"]), f"{_number(rate['lowest'])}-{_number(rate['highest'])}"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def _per_core(result: Result) -> str:
    head = ["tier", "uint8", "", "float", "", "read", "decode", "resize", "colour", "hand\nover", "bytes/\nimage"]
    rows = []
    for tier, core in result["per_core"].items():
        size = core["bytes_per_image"]
        times = [f"{microseconds:.0f}" for microseconds in core["stages"].values()]
        stored = "-" if size is None else f"{size:,.0f}"
        rows.append([tier, *_rate(core["uint8"]), *_rate(core["normalised"]), *times, stored])
    return (
        "images/s per core: one process with one thread, files in the system's cache; float: with colours and\n"
        "normalised. From read to hand over: µs per image; these rates do not include the hand-over\n"
        + table(head, rows)
    )


def _in_all(result: Result) -> str:
    processes = f"{result['workers']} loader process{'' if result['workers'] == 1 else 'es'}"
    who = processes if result["workers"] else "the training process itself (data.workers=0)"
    head = ["tier", "images/s", "", "loader core\nimages/s"]
    rows = []
    for tier, found in result["in_all"].items():
        rows.append([tier, *_rate(found["rate"]), _number(result["per_core"][tier]["loader_core"])])
        if found["one_process"]:
            rows[-1] += [*_rate(found["one_process"]), f"× {found['scaling']:.2f}"]
    if result["workers"] > 1:
        head += ["one process\nimages/s", "", "scaling"]
    return (
        f"in all: uint8 micro-batches from {who}; {result['cores']} usable cores;\n"
        "loader core: as per core, with the hand-over\n" + table(head, rows)
    )


def _references(result: Result) -> list[str]:
    references = result["references"]
    rates = [
        [title, *_rate(references["per_core"][name]), *_rate(references["in_all"][name])]
        for name, title in REFERENCES.items()
    ]
    scopes = {"per core": "ratios_per_core", "in all": "ratios_in_all"}
    ratios = [
        [tier, *(f"× {references[scope][tier][name]:.2f}" for scope in scopes.values() for name in COMPARED)]
        for tier in result["per_core"]
    ]
    return [
        "torchvision's usual pipelines on the same files, in turns with ours, with as many processes;\n"
        "normalised floats, bilinear (torchvision's default); per core without collating them into batches\n"
        + table(["", "per core\nimages/s", "", "in all\nimages/s", ""], rates),
        "ours over theirs, medians: per core our uint8 over Pillow without colours, else our float; in all\n"
        "always our uint8, as ours leaves colours and normalisation to the device\n"
        + table(["tier", *(f"{scope}\n{name}" for scope in scopes for name in COMPARED)], ratios),
    ]
