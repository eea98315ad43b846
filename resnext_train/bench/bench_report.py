"""Format the result as plain text, 100 columns wide."""

from __future__ import annotations

from collections.abc import Sequence

from resnext_train.bench.bench_data import Result
from resnext_train.bench.interleaved_timing import Rate
from resnext_train.errors import printable

GPU_RATES = "To size a host, divide the images/s of its GPUs (docs/gpu-rates.md) by those of one loader process."


def report(result: Result) -> str:
    """Return all tables with their explanations."""
    tables = [_rates(result), _stages(result), *([_ratios(result)] if result["ratios"] else [])]
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


def _rates(result: Result) -> str:
    workers = result["workers"]
    processes = f"{workers} process{'es' * (workers > 1)}" if workers else "training\nprocess"
    head = ["", "one loader\nprocess", "", f"in all:\n{processes}", "", "scaling"]
    rows = [
        [name, *_rate(rate["one"]), *_rate(rate["all"]), f"× {rate['all']['median'] / rate['one']['median']:.2f}"]
        for name, rate in result["rates"].items()
    ]
    theirs = "; torchvision's usual\npipelines on the same files make normalised floats" if result["ratios"] else ""
    return f"images/s, files in the system's cache, {result['cores']} usable cores; ours are uint8{theirs}\n" + table(
        head, rows
    )


def _stages(result: Result) -> str:
    head = ["tier", "read", "decode", "resize", "colour", "images/s\nwith colours", "bytes/\nimage"]
    rows = []
    for tier, times in result["microseconds"].items():
        size = result["bytes_per_image"][tier]
        stored = "-" if size is None else f"{size:,.0f}"
        with_colours = _number(result["with_colours"][tier])
        rows.append([tier, *(f"{time:.0f}" for time in times.values()), with_colours, stored])
    return (
        "µs per image: read, decode and resize in one loader process; colours and normalisation on one core,\n"
        "which training leaves to the device; with colours: images/s of one process that does all\n" + table(head, rows)
    )


def _ratios(result: Result) -> str:
    scopes = {"one": "one process", "with_colours": "one process, with colours", "all": "in all"}
    rows = [
        [f"{name}: {title}", *(f"× {ratio:.2f}" for ratio in ratios[scope].values())]
        for name, ratios in result["ratios"].items()
        for scope, title in scopes.items()
    ]
    return "ours over theirs, medians\n" + table(["", *result["microseconds"]], rows)
