"""Format the result as plain text, 100 columns wide."""

from __future__ import annotations

from collections.abc import Sequence

from resnext_train.bench.bench_data import Result
from resnext_train.bench.interleaved_timing import Rate
from resnext_train.errors import printable

GPU_RATES = "To size a host, see docs/gpu-rates.md."


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
    decoders = (
        "" if m["storage"] in ("memory", "raw") else "\nour JPEG decoders: " + ", ".join(result["jpeg"]["decoders"])
    )
    return (
        f"images: {where}\n"
        f"sample: {m['files']:,} different ones, {m['width']:.0f} × {m['height']:.0f} pixels on average{left_out}\n"
        f"a pass: {m['images']:,} images or more in micro-batches of {m['micro_batch']}; median of {passes}, "
        "lowest-highest\n"
        f"crops: {m['crop']} × {m['crop']} pixels{decoders}"
    )


def _rate(rate: Rate) -> tuple[str, str]:
    return _number(rate["median"]), f"{_number(rate['lowest'])}-{_number(rate['highest'])}"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def _rates(result: Result) -> str:
    workers = result["workers"]
    titles = {"one": "one loader\nprocess" if workers else "training\nprocess", "floats": "one process,\nfloats"}
    if workers > 1:
        titles["all"] = f"in all:\n{workers} processes"
    head = ["", *(cell for title in titles.values() for cell in ("", title))]
    rows = [[name, *(cell for scope in titles for cell in _rate(of[scope]))] for name, of in result["rates"].items()]
    theirs = ", as\ntorchvision's usual pipelines always do" if result["ratios"] else ""
    return (
        f"images/s, files in the system's cache, {result['cores']} usable cores. Ours hand over uint8, and training\n"
        f"leaves colours and normalisation to the device; floats: no loader process, but with both{theirs}\n"
        + table(head, rows)
    )


def _stages(result: Result) -> str:
    head = ["tier", "read", "decode", "resize", "rest", "colour", "bytes/\nimage"]
    rows = []
    for tier, times in result["microseconds"].items():
        size = result["bytes_per_image"][tier]
        stored = "-" if size is None else f"{size:,.0f}"
        rows.append([tier, *(f"{time:.0f}" for time in times.values()), stored])
    return (
        "µs per image, from read to rest those of the first column above; the rest is mostly the hand-over;\n"
        "colour: colours and normalisation on one core\n" + table(head, rows)
    )


def _ratios(result: Result) -> str:
    titles = {"floats": "one process, floats", "one": "one process, uint8", "all": "in all, uint8"}
    rows = [
        [f"{name}: {titles[scope]}", *(f"× {ratio:.2f}" for ratio in by_tier.values())]
        for name, ratios in result["ratios"].items()
        for scope, by_tier in ratios.items()
    ]
    return "ours over theirs, medians; uint8: our bytes over their floats\n" + table(
        ["", *result["microseconds"]], rows
    )
