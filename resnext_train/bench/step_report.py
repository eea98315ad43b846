"""Format the results of `resnext bench step` and `resnext bench scaling` as plain text, 100 columns wide."""

from __future__ import annotations

from typing import Any

from resnext_train.bench.bench_report import table
from resnext_train.bench.step_timer import PARTS

Result = dict[str, Any]


def step_report(result: Result) -> str:
    """Return the tables of `bench step`."""
    m, rates, launches = result["measured"], result["rates"], result["launches"]
    rows = [
        [name, f"{rates[key]['median']:,.1f}", f"{rates[key]['lowest']:,.1f}-{rates[key]['highest']:,.1f}"]
        for name, key in (("our step", "step"), ("bare loop", "bare"))
    ]
    parts = [
        [
            name,
            f"{result['ms'][name]:,.2f}",
            f"{_share(result['ms'][name], result['step_ms'])}",
            str(launches.get(name, 0)),
        ]
        for name in PARTS
    ]
    parts.append(["step", f"{result['step_ms']:,.2f}", "100 %", str(sum(launches.values()))])
    machine, of_machine = result["machine"], result["of_machine"]
    return "\n".join(
        [
            _title(m),
            f"a lap: {m['steps']} steps; median of {m['rounds']} in turns, lowest-highest",
            "",
            "images/s over all processes; the bare loop is torch's own parts alone, and its images are on the device",
            table(["", "median", ""], rows),
            f"ours over bare: × {result['ratio']:.2f}",
            "",
            table(["part of a step", "ms", "share", "calls"], parts),
            f"calls beside the network's own and the optimizer's: {result['launches_beyond']}, budget "
            f"{result['launch_budget']}",
            "",
            f"peak memory       {result['peak_memory_bytes'] / 1e9:.2f} GB"
            + (" of the whole process, torch included" if m["device"] == "cpu" else ""),
            f"arithmetic        {_si(result['flop_per_s'])}FLOP/s, {100 * of_machine['matmul']:.0f} % of a matrix "
            f"product's {_si(machine['matmul_flop_per_s'])}FLOP/s",
            f"memory            {_si(result['bytes_per_s'])}B/s, {100 * of_machine['copy']:.0f} % of a copy's "
            f"{_si(machine['copy_bytes_per_s'])}B/s",
        ]
    )


def scaling_report(result: Result) -> str:
    """Return the table of `bench scaling`."""
    rows = [
        [
            n,
            f"{rates['step']['median']:,.1f}",
            f"{rates['step']['lowest']:,.1f}-{rates['step']['highest']:,.1f}",
            f"{100 * result['efficiency'][n]:.0f} %",
            f"{rates['bare']['median']:,.1f}",
            f"{result['step_ms'][n]:,.2f}",
            f"{result['ms'][n]['all_reduce']:,.2f}",
        ]
        for n, rates in result["rates"].items()
    ]
    head = ["processes", "images/s", "", "efficiency", "bare loop,\nimages/s", "step, ms", "of these\nall-reduce"]
    return f"{_title(result['measured']['1'])}\n\n" + table(head, rows)


def _title(m: dict[str, Any]) -> str:
    return (
        f"{m['arch']}, {m['crop']} × {m['crop']} pixels, {m['device']}, {m['precision']}, {m['layout']}, "
        f"compile {m['compile']}\n"
        f"a step: {m['batch_size']} images over all processes, in {m['micro_batches']} micro-batches of "
        f"{m['micro_batch']}"
    )


def _share(part: float, whole: float) -> str:
    return f"{100 * part / whole:.0f} %"


def _si(value: float) -> str:
    for factor, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M")):
        if value >= factor:
            return f"{value / factor:.1f} {prefix}"
    return f"{value:.0f} "
