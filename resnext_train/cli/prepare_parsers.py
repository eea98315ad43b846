"""The arguments of `resnext prepare`; see parsers.py. Imports no torch."""

from __future__ import annotations

from argparse import ArgumentParser

from resnext_train.prepare import DEFAULT_QUALITY, DEFAULT_SIZE

_TIERS = """tiers:
  exact     the same pixels, but a JPEG can be decoded in part, which is faster, if jpegtran (libjpeg-turbo) is there
  resized   JPEGs whose short side is at most --size: smaller and faster, and lossy
  raw       pixels whose short side is at most --size, not compressed: fastest and largest, and lossy

Give a killed command again to resume it.

example:
  """


def pack_arguments(p: ArgumentParser) -> None:
    p.description = (
        "Pack a folder of images: one with a folder per class, a data root that holds train/ and val/, Tiny-ImageNet "
        "as it is published, or a .csv table of path,label."
    )
    p.epilog = _TIERS + "{prog} /data/imagenet /data/imagenet-pack --tier exact"
    p.add_argument("source", metavar="SRC", help="the images, which are only read")
    p.add_argument("out", metavar="DST", help="folder to write to; holds train/ and val/ if SRC does")
    _add_pack_options(p)


def imagenet_arguments(p: ArgumentParser) -> None:
    p.description = "Pack ImageNet 2012 straight from its archives; nothing is unpacked to the disk in between."
    p.epilog = (
        _TIERS + "{prog} --train-tar ILSVRC2012_img_train.tar --val-tar ILSVRC2012_img_val.tar \\\n"
        "    --devkit ILSVRC2012_devkit_t12.tar.gz --out /data/imagenet-pack"
    )
    p.add_argument("--train-tar", metavar="TAR", help="ILSVRC2012_img_train.tar")
    p.add_argument("--val-tar", metavar="TAR", help="ILSVRC2012_img_val.tar; its labels come from one of the next two")
    p.add_argument("--devkit", metavar="TAR.GZ", help="ILSVRC2012_devkit_t12.tar.gz, also for classes in plain words")
    p.add_argument("--val-wnids", metavar="FILE", help="a text file with a class (WNID) a line, one per image of val")
    p.add_argument("--out", required=True, metavar="DIR", help="folder in which train/ and val/ are made")
    _add_pack_options(p)


def _add_pack_options(p: ArgumentParser) -> None:
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


def _add_workers(p: ArgumentParser) -> None:
    p.add_argument("--workers", type=int, metavar="W", help="processes (default: all usable cores)")


def check_arguments(p: ArgumentParser) -> None:
    p.description = "Decode every image of a folder or pack and list those that are bad (exit code 1) or odd."
    p.epilog = "example:\n  {prog} /data/imagenet"
    p.add_argument("path", metavar="PATH", help="images as for pack, or a pack, or a folder of packs train/ and val/")
    _add_workers(p)


def unpack_arguments(p: ArgumentParser) -> None:
    p.description = "Write a pack's images as files under their old names; arrays of the raw tier become PNG files."
    p.epilog = "example:\n  {prog} /data/imagenet-pack /data/imagenet-again"
    p.add_argument("source", metavar="PACK", help="a pack, or a folder of packs train/ and val/")
    p.add_argument("out", metavar="OUT", help="a folder that is new or empty")
