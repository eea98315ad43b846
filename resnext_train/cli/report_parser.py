"""The arguments of `resnext report`, with their help. Imports no torch."""

from __future__ import annotations

from argparse import ArgumentParser

from resnext_train.report.papers.paper_table_data import TABLES


def report_arguments(p: ArgumentParser) -> None:
    p.description = (
        "Show runs, finished or not, beside each other: accuracies with intervals and published results, means over "
        "seeds, tests of differences, costs, and where the recipes differ."
    )
    p.epilog = (
        "Beside the report, summary.csv has the numbers of each run for other programs. `resnext eval --ckpt "
        "RUN/checkpoints/last.pt --out RUN/evaluation` adds classes and single images to what is known of a run. The "
        "page needs no network; its plots are beside it as PNG and SVG.\n\n"
        "examples:\n  {prog} runs/resnet20\n  {prog} runs --out report.html\n  {prog} runs/a runs/b --text\n"
        "  {prog} runs --watch\n  {prog} --table 3 runs --out table3.csv"
    )
    p.add_argument(
        "paths",
        nargs="*",
        metavar="RUN|FOLDER",
        help="run folders, and folders that hold some up to four levels below (default: runs)",
    )
    p.add_argument(
        "--out",
        "--output",
        metavar="FILE",
        help="the page to write (default: report.html in the folder if one is given, else here)",
    )
    p.add_argument("--text", action="store_true", help="print the report as text, and write nothing without --out")
    p.add_argument(
        "--no-pictures", action="store_true", help="show no image of the data on the page, as where it is published"
    )
    p.add_argument(
        "--table",
        nargs="?",
        const="",
        metavar="NAME",
        help=f"print a paper's table instead, with the results of the runs beside the published ones, and the commands "
        f"that fill the rest; --out writes it as .csv or .html. ResNeXt paper and its section 5.1: "
        f"{_names('ResNeXt')}; ResNet paper: {_names('ResNet')}",
    )
    p.add_argument(
        "--watch",
        action="store_true",
        help="write nothing, but serve the page to browsers on this machine; it follows its runs until Ctrl-C",
    )
    p.add_argument(
        "--port",
        type=int,
        default=8123,
        metavar="N",
        help="for --watch: the port, or where that is taken the next free one (default: 8123)",
    )


def _names(paper: str) -> str:
    return ", ".join(name for name, table in TABLES.items() if table.title.startswith(f"{paper} paper"))
