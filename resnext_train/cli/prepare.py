"""resnext-prepare: pack images for fast reading, check them, and unpack them."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from resnext_train.cli.run_command import announce, run_command
from resnext_train.errors import InputError
from resnext_train.prepare import DEFAULT_QUALITY, DEFAULT_SIZE

if TYPE_CHECKING:
    from resnext_train.prepare.image_splits import Split
    from resnext_train.prepare.pack_images import Options

NAME = "resnext-prepare"

_TIERS = """tiers:
  exact     the same pixels, but a JPEG can be decoded in part, which is faster, if jpegtran (libjpeg-turbo) is there
  resized   JPEGs whose short side is at most --size: smaller and faster, and lossy
  raw       pixels whose short side is at most --size, not compressed: fastest and largest, and lossy

Give a killed command again to resume it.
"""


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        prog=NAME,
        description="Pack images into a few large files that training reads fast; check images; unpack.",
        epilog=f"{NAME} COMMAND --help shows a command's options and an example",
    )
    commands = p.add_subparsers(metavar="COMMAND", required=True)
    _add_pack(commands)
    _add_imagenet(commands)
    _add_check(commands)
    _add_unpack(commands)
    return p


def _add_pack(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    p = commands.add_parser(
        "pack",
        help="pack a folder of images",
        description="Pack a folder of images: one with a folder per class, a data root that holds train/ and val/, "
        "Tiny-ImageNet as it is published, or a .csv table of path,label.",
        epilog=f"{_TIERS}\nexample: {NAME} pack /data/imagenet /data/imagenet-pack --tier exact",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument("source", metavar="SRC", help="the images, which are only read")
    p.add_argument("out", metavar="DST", help="folder to write to; holds train/ and val/ if SRC does")
    _add_options(p)
    p.set_defaults(run=_pack)


def _add_imagenet(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    p = commands.add_parser(
        "imagenet",
        help="pack ImageNet straight from its archives",
        description="Pack ImageNet 2012 straight from its archives; nothing is unpacked to the disk in between.",
        epilog=f"{_TIERS}\nexample: {NAME} imagenet --train-tar ILSVRC2012_img_train.tar --val-tar "
        "ILSVRC2012_img_val.tar --devkit ILSVRC2012_devkit_t12.tar.gz --out /data/imagenet-pack",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument("--train-tar", metavar="TAR", help="ILSVRC2012_img_train.tar")
    p.add_argument("--val-tar", metavar="TAR", help="ILSVRC2012_img_val.tar; its labels come from one of the next two")
    p.add_argument("--devkit", metavar="TAR.GZ", help="ILSVRC2012_devkit_t12.tar.gz, also for classes in plain words")
    p.add_argument("--val-wnids", metavar="FILE", help="a text file with a class (WNID) a line, one per image of val")
    p.add_argument("--out", required=True, metavar="DIR", help="folder in which train/ and val/ are made")
    _add_options(p)
    p.set_defaults(run=_imagenet)


def _add_options(p: argparse.ArgumentParser) -> None:
    p.add_argument("--tier", choices=["exact", "resized", "raw"], default="exact", help="see below (default: exact)")
    p.add_argument(
        "--size", type=int, metavar="N", help=f"resized, raw: short side in pixels (default: {DEFAULT_SIZE})"
    )
    p.add_argument(
        "--quality", type=int, metavar="Q", help=f"resized: JPEG quality, 1 to 100 (default: {DEFAULT_QUALITY})"
    )
    p.add_argument(
        "--verify",
        default="all",
        metavar="all|N",
        help="compare every rewritten JPEG with its original, or every Nth only (default: all)",
    )
    _add_workers(p)


def _add_workers(p: argparse.ArgumentParser) -> None:
    p.add_argument("--workers", type=int, metavar="W", help="processes (default: all usable cores)")


def _add_check(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    p = commands.add_parser(
        "check",
        help="decode every image and list what is bad",
        description="Decode every image of a folder or pack and list those that are bad (exit code 1) or odd.",
        epilog=f"example: {NAME} check /data/imagenet",
    )
    p.add_argument("path", metavar="PATH", help="images as for pack, or a pack, or a folder of packs train/ and val/")
    _add_workers(p)
    p.set_defaults(run=_check)


def _add_unpack(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    p = commands.add_parser(
        "unpack",
        help="write a pack's images as files again",
        description="Write a pack's images as files under their old names; arrays of the raw tier become PNG files.",
        epilog=f"example: {NAME} unpack /data/imagenet-pack /data/imagenet-again",
    )
    p.add_argument("source", metavar="PACK", help="a pack, or a folder of packs train/ and val/")
    p.add_argument("out", metavar="OUT", help="a folder that is new or empty")
    p.set_defaults(run=_unpack)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code: 1 if an image is bad, 2 for bad input."""
    args = parser().parse_args(argv)
    good: list[bool] = []
    code = run_command(NAME, lambda: good.append(args.run(args)))
    if code == 130 and args.run in (_pack, _imagenet):
        announce("packed images are kept; the same command packs the rest")
    return code or (0 if good[0] else 1)


def _pack(args: argparse.Namespace) -> bool:
    options = _options(args)

    from resnext_train.prepare.image_splits import check_target, splits_of
    from resnext_train.prepare.pack_images import pack

    source, out = Path(args.source), Path(args.out)
    check_target(source, out)
    return pack(splits_of(source), out, options, announce)


def _imagenet(args: argparse.Namespace) -> bool:
    from resnext_train.prepare.pack_images import pack_imagenet

    options = _options(args)
    return pack_imagenet(_imagenet_splits(args), Path(args.out), options, announce)


def _imagenet_splits(args: argparse.Namespace) -> dict[str, Split]:
    from resnext_train.prepare.imagenet_archives import Devkit, TrainSplit, read_devkit, read_wnids, val_split

    if not (args.train_tar or args.val_tar):
        raise InputError("give --train-tar, --val-tar or both")
    if args.val_tar and bool(args.devkit) == bool(args.val_wnids):
        raise InputError("--val-tar needs the classes of its images: give either --devkit or --val-wnids")
    if args.val_wnids and not args.val_tar:
        raise InputError("--val-wnids belongs to --val-tar, which is not given")
    devkit = read_devkit(Path(args.devkit)) if args.devkit else Devkit([], {})
    splits: dict[str, Split] = {}
    if args.train_tar:
        splits["train"] = TrainSplit(Path(args.train_tar), devkit.titles)
    if args.val_tar:
        labels = read_wnids(Path(args.val_wnids)) if args.val_wnids else devkit.val_labels
        splits["val"] = val_split(Path(args.val_tar), labels, devkit.titles, args.val_wnids or args.devkit)
    return splits


def _options(args: argparse.Namespace) -> Options:
    """Return the options of all sources, checked before anything is read."""
    if args.quality is not None and args.tier != "resized":
        raise InputError(f"--quality is for --tier resized; tier {args.tier} does not re-encode images")
    if args.size is not None and args.tier == "exact":
        raise InputError("--size is for --tier resized and raw; tier exact keeps every pixel")
    for option, smallest, largest in (("quality", 1, 100), ("size", 8, 65500)):
        value = getattr(args, option)
        if value is not None and not smallest <= value <= largest:
            raise InputError(f"--{option} {value}: must be from {smallest} to {largest}")
    if args.verify != "all" and not (args.verify.isdecimal() and int(args.verify) > 0):
        raise InputError(f"--verify {args.verify}: must be all, or a number N to compare every Nth image")
    workers = _workers(args)

    from resnext_train.prepare.pack_images import Options
    from resnext_train.prepare.pack_records import Tier, find_jpegtran

    tier = Tier(
        args.tier,
        None if args.tier == "exact" else args.size or DEFAULT_SIZE,
        args.quality or DEFAULT_QUALITY if args.tier == "resized" else None,
        find_jpegtran(),
    )
    return Options(tier, 1 if args.verify == "all" else int(args.verify), workers)


def _workers(args: argparse.Namespace) -> int:
    from resnext_train.data.loader_workers import usable_cores

    if args.workers is not None and args.workers < 1:
        raise InputError(f"--workers {args.workers}: must be at least 1")
    workers: int = args.workers or usable_cores()
    if workers > 1:
        from resnext_train.prepare.worker_pool import start_server

        start_server()  # in parallel to this process's own imports, which take as long
    return workers


def _check(args: argparse.Namespace) -> bool:
    workers = _workers(args)

    from resnext_train.prepare.check_images import check

    return check(Path(args.path), workers, announce)


def _unpack(args: argparse.Namespace) -> bool:
    from resnext_train.prepare.unpack_images import unpack

    unpack(Path(args.source), Path(args.out), announce)
    return True


if __name__ == "__main__":
    raise SystemExit(main())
