"""What a command of `resnext prepare` is asked for; see requests.py."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from resnext_train.distributed.process_limits import check_socket_folder
from resnext_train.distributed.usable_cores import usable_cores
from resnext_train.errors import InputError
from resnext_train.prepare import DEFAULT_QUALITY, DEFAULT_SIZE
from resnext_train.prepare.worker_pool import start_server


@dataclass(frozen=True)
class PackOptions:
    """How images are packed; None: of no meaning for the tier."""

    tier: Literal["exact", "resized", "raw"]
    size: int | None
    quality: int | None
    verify_every: int
    workers: int


@dataclass(frozen=True)
class PackRequest:
    """A folder or table of images to pack."""

    source: Path
    out: Path
    options: PackOptions


def read_pack(args: Namespace) -> PackRequest:
    """Check the options, and start to start worker processes."""
    return PackRequest(Path(args.source), Path(args.out), _pack_options(args))


@dataclass(frozen=True)
class ImagenetRequest:
    """Archives of ImageNet to pack."""

    train_tar: Path | None
    val_tar: Path | None
    devkit: Path | None
    val_wnids: Path | None
    out: Path
    options: PackOptions


def read_imagenet(args: Namespace) -> ImagenetRequest:
    """Check that the archives given belong together, and start to start worker processes."""
    options = _pack_options(args)
    if not (args.train_tar or args.val_tar):
        raise InputError("give --train-tar, --val-tar or both")
    if args.val_tar and bool(args.devkit) == bool(args.val_wnids):
        raise InputError("--val-tar needs the classes of its images: give either --devkit or --val-wnids")
    if args.val_wnids and not args.val_tar:
        raise InputError("--val-wnids belongs to --val-tar, which is not given")
    return ImagenetRequest(
        _path(args.train_tar),
        _path(args.val_tar),
        _path(args.devkit),
        _path(args.val_wnids),
        Path(args.out),
        options,
    )


def _path(name: str | None) -> Path | None:
    return Path(name) if name else None


def _pack_options(args: Namespace) -> PackOptions:
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
    return PackOptions(
        args.tier,
        None if args.tier == "exact" else args.size or DEFAULT_SIZE,
        args.quality or DEFAULT_QUALITY if args.tier == "resized" else None,
        1 if args.verify == "all" else int(args.verify),
        _workers(args),
    )


def _workers(args: Namespace) -> int:
    if args.workers is not None and args.workers < 1:
        raise InputError(f"--workers {args.workers}: must be at least 1")
    workers: int = args.workers or usable_cores()
    if workers > 1:
        check_socket_folder()
        start_server()  # in parallel to this process's own imports, which take as long
    return workers


@dataclass(frozen=True)
class CheckRequest:
    """Images to check."""

    path: Path
    workers: int


def read_check(args: Namespace) -> CheckRequest:
    """Check the options, and start to start worker processes."""
    return CheckRequest(Path(args.path), _workers(args))


@dataclass(frozen=True)
class UnpackRequest:
    """A pack to write as files again."""

    source: Path
    out: Path


def read_unpack(args: Namespace) -> UnpackRequest:
    """Name the pack and the folder."""
    return UnpackRequest(Path(args.source), Path(args.out))
