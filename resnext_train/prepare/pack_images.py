"""Run `resnext prepare pack` and `imagenet`: pack every split, print a summary and write the report."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from resnext_train.data.pack.pack_format import UNREADABLE
from resnext_train.data.pack.pack_index import PackIndex
from resnext_train.data.split_folders import VALIDATION
from resnext_train.errors import printable
from resnext_train.prepare import imagenet_archives
from resnext_train.prepare.image_splits import Split
from resnext_train.prepare.pack_records import Tier
from resnext_train.prepare.pack_split import Outcome, pack_split
from resnext_train.prepare.pack_writer import write_errors_explained, write_whole

PrintLine = Callable[[str], None]

REPORT = "report.json"
_LINE_SECONDS = 30.0
"""Seconds between two progress lines if stderr is no terminal."""

_LISTED = 20
"""Odd files that are printed; the report lists all."""

NO_JPEGTRAN = (
    "jpegtran is not installed, so JPEGs are kept as they are and training decodes them whole; for faster training "
    "install it (apt-get install libjpeg-turbo-progs, or brew install jpeg-turbo), delete the pack and pack again"
)


@dataclass(frozen=True)
class Options:
    """Packing options."""

    tier: Tier
    verify_every: int
    """Compare every Nth image with its original."""
    workers: int


def pack(splits: dict[str, Split], out: Path, options: Options, print_line: PrintLine) -> bool:
    """Pack each split into `out` / its name and return whether all images are readable.

    Raises:
        InputError: see `pack_split`.
    """
    _print_notes(splits, options.tier, print_line)
    good = True
    for name, split in splits.items():
        folder = out / name
        with progress(split.images, name or "pack") as bar:
            outcome = pack_split(split, folder, options.tier, options.verify_every, options.workers, bar.update)
        if outcome is None:
            print_line(f"{folder} is already packed, from the same images with the same options")
            unreadable = int((PackIndex(folder).kind == UNREADABLE).sum())
            if unreadable:
                print_line(f"unreadable: {unreadable:,} of its images; `resnext prepare check` lists them")
            good = good and not unreadable
            continue
        with write_errors_explained(out):
            _write_report(out / REPORT, name or "images", split, options.tier, outcome)
        print_outcome(folder, outcome, out / REPORT, print_line)
        good = good and not outcome.unreadable
    return good


def pack_imagenet(splits: dict[str, Split], out: Path, options: Options, print_line: PrintLine) -> bool:
    """Pack ImageNet's archives like `pack`, and print how they differ from ImageNet 2012."""
    for remark in imagenet_archives.remarks(splits):
        print_line(remark)
    good = pack(splits, out, options, print_line)
    if "train" in splits and (remark := imagenet_archives.remark_on_images(len(PackIndex(out / "train")))):
        print_line(remark)
    return good


def progress(images: int | None, what: str) -> tqdm[Any]:
    """Return a progress bar on stderr; if that is no terminal, it prints a line every `_LINE_SECONDS`."""
    every, delay = (0.2, 0.0) if sys.stderr.isatty() else (_LINE_SECONDS, _LINE_SECONDS)
    return tqdm(total=images, desc=printable(what), unit="image", mininterval=every, delay=delay)


def _print_notes(splits: dict[str, Split], tier: Tier, print_line: PrintLine) -> None:
    if tier.name == "exact" and tier.jpegtran is None:
        print_line(NO_JPEGTRAN)
    if tier.name != "exact":
        form = f"JPEG of quality {tier.quality}" if tier.name == "resized" else "arrays without compression"
        print_line(
            f"tier {tier.name} is lossy: images with a short side over {tier.size} pixels are resized, stored as {form}"
        )
    if "val" in splits and (name := Path(splits["val"].where).name) in VALIDATION[1:]:
        print_line(f"the images of {name}/ are packed as the validation split, val/")
    if {"train", "val"} <= splits.keys():
        train, val = set(splits["train"].classes), set(splits["val"].classes)
        if train != val:
            print_line(
                f"train and val hold different classes: {len(train - val)} are only in train, "
                f"{len(val - train)} only in val"
            )


_LIKE_IMAGENETS = 50_000
"""Bytes of an image on average from which on it tells how long ImageNet would take, whose images have 110,000."""


def print_outcome(folder: Path, outcome: Outcome, report: Path, print_line: PrintLine) -> None:
    """Print what was packed, at which rate, and which images are odd or unreadable."""
    ratio = outcome.bytes_after / max(1, outcome.bytes_before)
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in outcome.kinds.items() if count)
    print_line(
        f"{folder}: {outcome.images:,} images ({kinds}); "
        f"{outcome.bytes_before:,} bytes before, {outcome.bytes_after:,} after: × {ratio:.3f}"
    )
    if outcome.packed_now:
        rate = outcome.packed_now / outcome.seconds
        bytes_each = outcome.bytes_before / max(1, outcome.images)
        hours = imagenet_archives.TRAIN_IMAGES / rate / 3600
        of_imagenet = f"; ImageNet's {imagenet_archives.TRAIN_IMAGES:,} training images would take {hours:.1f} hours"
        earlier = outcome.images - outcome.packed_now
        print_line(
            f"{outcome.packed_now:,} images packed in {outcome.seconds:.1f} s, {rate:,.1f} images/s"
            + (f", after {earlier:,} by earlier commands" if earlier else "")
            + (of_imagenet if bytes_each > _LIKE_IMAGENETS else "")
        )
    print_odd(outcome.odd, report, print_line)
    for name, why in outcome.unreadable:
        print_line(f"unreadable: {name}: {why}")


def print_odd(odd: list[tuple[str, str]], report: Path | None, print_line: PrintLine) -> None:
    """Print the number of odd images by reason, and the first of them."""
    for why, count in Counter(why for _, why in odd).most_common():
        print_line(f"odd: {count:,} × {why}")
    for name, why in odd[:_LISTED]:
        print_line(f"  {name}: {why}")
    if len(odd) > _LISTED:
        print_line(f"  and {len(odd) - _LISTED:,} more" + (f"; {report} lists all" if report else ""))


def _write_report(path: Path, name: str, split: Split, tier: Tier, outcome: Outcome) -> None:
    """Write a split's entry of the report and keep the other split's."""
    try:
        report = json.loads(path.read_text())
    except (OSError, ValueError):
        report = {}
    report[name] = {"source": split.where, "tier": tier.name, "settings": tier.settings, **outcome._asdict()}
    text = json.dumps(report, indent=1) + "\n"
    write_whole(path, lambda file: file.write(text.encode()))
