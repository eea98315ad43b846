"""`resnext prepare`: pack images for fast reading, check them, and unpack them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from resnext_train.cli.prepare_requests import CheckRequest, ImagenetRequest, PackOptions, PackRequest, UnpackRequest
from resnext_train.cli.run_command import announce
from resnext_train.prepare import check_images, pack_images, unpack_images
from resnext_train.prepare.image_splits import Split, check_target, splits_of
from resnext_train.prepare.imagenet_archives import TrainSplit, val_split
from resnext_train.prepare.imagenet_devkit import Devkit, read_devkit, read_wnids
from resnext_train.prepare.pack_records import Tier, find_jpegtran


def pack(request: PackRequest) -> int:
    """Pack a folder or table of images; return 1 if one of them is unreadable."""
    check_target(request.source, request.out)
    with _interrupts_explained():
        options = _options(request.options)
        return int(not pack_images.pack(splits_of(request.source), request.out, options, announce))


def imagenet(request: ImagenetRequest) -> int:
    """Pack ImageNet from its archives; return 1 if an image is unreadable."""
    with _interrupts_explained():
        splits = _imagenet_splits(request)
        return int(not pack_images.pack_imagenet(splits, request.out, _options(request.options), announce))


@contextmanager
def _interrupts_explained() -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        announce("packed images are kept; the same command packs the rest")
        raise


def _options(options: PackOptions) -> pack_images.Options:
    tier = Tier(options.tier, options.size, options.quality, find_jpegtran())
    return pack_images.Options(tier, options.verify_every, options.workers)


def _imagenet_splits(request: ImagenetRequest) -> dict[str, Split]:
    devkit = read_devkit(request.devkit) if request.devkit else Devkit([], {})
    splits: dict[str, Split] = {}
    if request.train_tar:
        splits["train"] = TrainSplit(request.train_tar, devkit.titles)
    if request.val_tar:
        labels = read_wnids(request.val_wnids) if request.val_wnids else devkit.val_labels
        splits["val"] = val_split(request.val_tar, labels, devkit.titles, str(request.val_wnids or request.devkit))
    return splits


def check(request: CheckRequest) -> int:
    """Check images; return 1 if one of them is bad."""
    return int(not check_images.check(request.path, request.workers, announce))


def unpack(request: UnpackRequest) -> None:
    """Write a pack's images as files."""
    unpack_images.unpack(request.source, request.out, announce)
