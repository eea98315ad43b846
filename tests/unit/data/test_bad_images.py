"""Files that cannot be read, or hardly: what is said of them, and what a run does about them."""

from __future__ import annotations

import errno
import io
import json
import os
import re
import resource
import signal
import stat
import struct
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import get_worker_info

from helpers.commands import Refuses, evaluate, train
from helpers.evaluation import crops, evaluated
from helpers.images import save_image
from helpers.runs import events, state_of
from resnext_train.compute.precision import Precision
from resnext_train.config import load_recipe
from resnext_train.data.build_loaders import build_eval_loader, build_train_loader
from resnext_train.data.build_sources import build_splits
from resnext_train.data.decode.image_limits import MAX_PIXELS
from resnext_train.data.decode.jpeg_header import BadImageError
from resnext_train.data.decode.lazy_image import LazyImage, decode, open_image
from resnext_train.data.eval_batches import EvalBatch
from resnext_train.data.image_batch import ImageBatch, LoadReport
from resnext_train.data.sampler import StepPlan
from resnext_train.data.sources.image_folder import MAX_BYTES, ImageFolder
from resnext_train.data.transforms.color_transform import ColorTransform
from resnext_train.data.transforms.crop_transforms import CropTransform, EvalTransform, PadTransform
from resnext_train.data.transforms.random_draws import BOX_DRAWS, CropDraws
from resnext_train.distributed.dist_context import DistContext
from resnext_train.distributed.rank import Rank
from resnext_train.errors import FaultError, LocalInputError

ONE = DistContext(Rank(), torch.device("cpu"))


def photo(width: int = 40, height: int = 30) -> Image.Image:
    return Image.fromarray(np.linspace(0, 255, width * height * 3).reshape(height, width, 3).astype(np.uint8))


def encode(image: Image.Image, form: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def huge_png(width: int, height: int) -> bytes:
    """A valid header of a PNG that holds next to nothing."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        checked = kind + content
        return struct.pack(">I", len(content)) + checked + struct.pack(">I", zlib.crc32(checked))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 99)) + chunk(b"IEND", b"")
    )


def huge_jpeg(width: int, height: int) -> bytes:
    data = bytearray(encode(photo(), "JPEG"))
    at = data.index(b"\xff\xc0")
    struct.pack_into(">HH", data, at + 5, height, width)
    return bytes(data)


def exif_broken() -> bytes:
    """An EXIF block whose directory points far beyond its end, and an orientation that no one should follow."""
    exif = Image.Exif()
    exif[0x0112] = 6
    data = bytearray(encode(photo(), "JPEG", exif=exif))
    at = data.index(b"Exif\0\0") + 6
    data[at + 4 : at + 8] = b"\xff\xff\xff\x7f"
    return bytes(data)


SIXTEEN_BITS = Image.fromarray((np.arange(1200).reshape(30, 40) * 50).astype(np.uint16))
with_alpha = photo()
with_alpha.putalpha(7)

READ: dict[str, tuple[Callable[[], bytes], Image.Image | None]] = {
    "PNG": (lambda: encode(photo(), "PNG"), photo()),
    "GIF": (lambda: encode(photo().quantize(64).convert("RGB"), "GIF"), photo().quantize(64).convert("RGB")),
    "WebP": (lambda: encode(photo(), "WEBP", lossless=True), photo()),
    "CMYK": (lambda: encode(photo().convert("CMYK"), "JPEG", quality=95), None),
    "16-bit": (lambda: encode(SIXTEEN_BITS, "PNG"), None),
    "gray": (lambda: encode(photo().convert("L"), "PNG"), photo().convert("L").convert("RGB")),
    "alpha": (lambda: encode(with_alpha, "PNG"), photo()),
    "EXIF broken": (exif_broken, None),
    "1×1": (lambda: encode(photo(1, 1), "PNG"), photo(1, 1)),
}
"""Odd files that are read nevertheless, all named .JPEG; and their pixels where they are kept exactly."""


def damaged_png() -> bytes:
    """A byte within the pixels' data changed, which ends the process in libpng as torchvision calls it."""
    data = bytearray(encode(photo(400, 300), "PNG"))
    data[len(data) // 2] ^= 0xFF
    return bytes(data)


def eps() -> bytes:
    return b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n(/tmp/x) (w) file closefile\n%%EOF\n"


REFUSED: dict[str, tuple[Callable[[], bytes], str]] = {
    "truncated": (lambda: encode(photo(400, 300), "JPEG")[:3000], "truncated"),
    "cut in the header": (lambda: encode(photo(), "JPEG")[:100], "[Tt]runcated"),
    "zero-byte": (lambda: b"", "empty"),
    "no image": (lambda: b"<html>404</html>", "format"),
    "20,000×20,000 PNG": (
        lambda: huge_png(20000, 20000),
        "100,000,000",
    ),
    "20,000×20,000 JPEG": (
        lambda: huge_jpeg(20000, 20000),
        "20,000 × 20,000 .*100,000,000",
    ),
    "damaged PNG": (damaged_png, r"\w+ \w+"),
    "PostScript, which would run": (eps, "format"),
    "60,000×60,000 PNG": (lambda: huge_png(60000, 60000), "100,000,000"),
}


def pixels_of(data: bytes) -> torch.Tensor:
    image = open_image(data)
    return image.region(0, 0, image.height, image.width)


@pytest.mark.parametrize("kind", READ)
def test_odd_files_are_read(kind: str) -> None:
    make, pixels = READ[kind]
    region = pixels_of(make())
    assert region.dtype == torch.uint8
    assert region.shape == ((3, 1, 1) if kind == "1×1" else (3, 30, 40)), "EXIF turns nothing"
    if pixels is not None:
        assert np.array_equal(region.permute(1, 2, 0).numpy(), np.asarray(pixels))


@pytest.mark.parametrize("kind", REFUSED)
def test_unreadable_files_are_refused_with_the_reason(kind: str) -> None:
    make, reason = REFUSED[kind]
    with pytest.raises(BadImageError, match=reason) as caught:
        pixels_of(make())
    assert "BytesIO" not in str(caught.value)


def animation() -> bytes:
    frames = [Image.new("P", (2000, 2000), n) for n in range(40)]
    return encode(frames[0], "GIF", save_all=True, append_images=frames[1:])


@contextmanager
def little_memory() -> Iterator[None]:
    """300 MB more than this process has now; whoever takes more gets a MemoryError."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 300_000_000, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


EVAL, PAD = EvalTransform(256, 224, "bicubic"), PadTransform(64, 4, (0, 0, 0), "bicubic", 0)
WIDE_EVAL, WIDE_PAD = replace(EVAL, resize=1000), replace(PAD, size=1000)
TOO_LARGE: dict[str, tuple[Callable[[], bytes], CropTransform]] = {
    "20,000×20,000 PNG": (lambda: huge_png(20000, 20000), EVAL),
    "20,000×20,000 JPEG": (lambda: huge_jpeg(20000, 20000), EVAL),
    "10×2,000 to be resized to 1,000": (lambda: encode(photo(10, 2000), "PNG"), WIDE_EVAL),
    "2,000×10 to be padded at 1,000": (lambda: encode(photo(2000, 10), "PNG"), WIDE_PAD),
}
needs_statm = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux's account of memory")


@needs_statm
@pytest.mark.parametrize("kind", TOO_LARGE)
def test_no_image_explodes_in_memory(kind: str) -> None:
    """The limit holds for what is decoded, and for what that is resized to."""
    make, transform = TOO_LARGE[kind]
    data = make()
    with little_memory(), pytest.raises(BadImageError, match="100,000,000"):
        transform(open_image(data), CropDraws(np.full(BOX_DRAWS, 0.5), 0.5))


@pytest.mark.slow
@needs_statm
def test_of_an_animation_only_the_first_frame_is_decoded() -> None:
    data = animation()
    with little_memory():
        assert (EVAL(open_image(data)) == 0).all()


def test_photographs_are_far_below_the_limit() -> None:
    assert MAX_PIXELS > 12_000 * 8_000


def loaders(root: Path, *overrides: str) -> tuple[list[ImageBatch], list[EvalBatch]]:
    """All training micro-batches of an epoch and all evaluation batches."""
    where = [f"data.root={root}", "data.workers=0", "augment.size=32", "eval.batch_size=4"]
    recipe = load_recipe("resnet18.yaml", [*where, "train.batch_size=8", "train.micro_batch=4", *overrides])
    splits = build_splits(recipe.data)
    plan = StepPlan(len(splits.train), 8, 2)
    micro_batches = build_train_loader(recipe, splits.train, plan, ONE, range(plan.steps_per_epoch), print)
    return list(micro_batches), list(build_eval_loader(recipe, splits.val, ONE, print))


def test_error_names_the_path_the_reason_and_what_to_do(image_root: Path) -> None:
    bad = image_root / "train" / "dog" / "5.JPEG"
    bad.write_bytes(b"")
    with pytest.raises(LocalInputError) as caught:
        loaders(image_root)
    told = str(caught.value)
    assert all(fact in told for fact in (f"{bad} ", "empty", "data.on_bad_image=skip", "`resnext prepare check`")), told


def test_skip_takes_the_next_readable_image_and_counts(image_root: Path) -> None:
    good, _ = loaders(image_root)
    bad = [image_root / "train" / "dog" / f"{i}.JPEG" for i in (5, 6)]
    bad[0].write_bytes(b"")
    bad[1].unlink()
    bad[1].mkdir()  # listed before it became a folder, as it would be in a cached list
    bad[1].rmdir()
    bad[1].write_bytes(b"no image")
    skipped, _ = loaders(image_root, "data.on_bad_image=skip")
    told = [text for micro_batch in skipped for text in micro_batch.report.unreadable]
    # Image 5 is replaced by image 7, after 6 was tried; image 6 by image 7
    assert len(told) == 3
    assert all(str(path) in text for path, text in zip([bad[0], bad[1]], sorted(set(told)), strict=True))
    changed = [
        (a.images[i], b.images[i])
        for a, b in zip(good, skipped, strict=True)
        for i in range(len(a.labels))
        if not torch.equal(a.images[i], b.images[i])
    ]
    assert len(changed) == 2, "all others are as they were"
    assert [g.labels.tolist() for g in skipped] == [g.labels.tolist() for g in good], "dog follows dog"
    assert sum(micro_batch.report.missing for micro_batch in skipped) == 2
    again, _ = loaders(image_root, "data.on_bad_image=skip")
    assert all(torch.equal(a.images, b.images) for a, b in zip(skipped, again, strict=True))


def no_file(path: Path, kind: str) -> None:
    """Put something else in the place of a file."""
    path.unlink(missing_ok=True)
    if kind == "named pipe":
        os.mkfifo(path)
    elif kind == "socket":
        os.mknod(path, stat.S_IFSOCK | 0o600)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "too large":
        with path.open("wb") as file:
            file.truncate(MAX_BYTES + 1)
    else:
        path.symlink_to(path)


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("named pipe", "pipe"),
        ("socket", "socket"),
        ("device", "device"),
        ("too large", "1,000,000,000"),
        ("link to itself", "Too many levels"),
    ],
)
def test_what_is_no_file_is_a_bad_image(image_root: Path, kind: str, reason: str, workers: int) -> None:
    bad = image_root / "train" / "dog" / "5.JPEG"
    no_file(bad, kind)
    with pytest.raises(LocalInputError, match=rf"/dog/5\.JPEG .*{reason}"):
        loaders(image_root, f"data.workers={workers}")
    skipped, _ = loaders(image_root, f"data.workers={workers}", "data.on_bad_image=skip")
    assert sum(micro_batch.report.missing for micro_batch in skipped) == 1
    assert [reason in text for micro_batch in skipped for text in micro_batch.report.unreadable] == [True]


def test_what_takes_the_place_of_an_image_keeps_its_own_label(image_root: Path) -> None:
    (image_root / "train" / "dog" / "7.JPEG").write_bytes(b"")  # the last dog: an emu comes next
    skipped, _ = loaders(image_root, "data.on_bad_image=skip")
    assert np.bincount(torch.cat([micro_batch.labels for micro_batch in skipped])).tolist() == [8, 7, 9]


def test_images_of_a_batch_without_a_readable_one_are_counted() -> None:
    report = LoadReport(0.0, 0.0, 0.0, 2, ())
    nothing = ImageBatch(torch.empty(0, 3, 4, 4, dtype=torch.uint8), torch.empty(0, dtype=torch.int64), None, report)
    some = ImageBatch(torch.zeros(3, 3, 4, 4, dtype=torch.uint8), torch.arange(3), None, report._replace(missing=1))
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, 3))
    plain = ColorTransform(0, 0, 0, 0, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    counts = evaluated(network, [some, nothing], plain, Precision("fp32", "cpu"), ONE)
    assert (counts.count, counts.unreadable) == (3, 3)


def test_evaluation_leaves_out_what_it_cannot_read(image_root: Path) -> None:
    _, good = loaders(image_root)
    for name in ("cat/1.JPEG", "emu/2.JPEG"):  # the second is alone in its batch
        (image_root / "val" / name).write_bytes(b"")
    _, skipped = loaders(image_root, "data.on_bad_image=skip")
    assert [len(block.labels) for block in skipped] == [3, 4, 0]
    assert [block.report.missing for block in skipped] == [1, 0, 1]
    assert torch.equal(crops(skipped[0]), crops(good[0])[[0, 2, 3]])
    assert torch.equal(skipped[0].labels, good[0].labels[[0, 2, 3]])


def test_a_disk_that_is_gone_is_no_bad_image(image_root: Path) -> None:
    """More than a few unreadable images in a row stop a run that skips, too."""
    for i in range(8, 30):
        save_image(image_root / "train" / "dog" / f"{i}.JPEG", seed=i)
    for path in image_root.glob("train/dog/*.JPEG"):
        path.write_bytes(b"")
    with pytest.raises(LocalInputError, match=r"/dog/\d+\.JPEG .*empty.* \d\d "):
        loaders(image_root, "data.on_bad_image=skip")


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize(
    ("number", "error", "told"),
    [(errno.EMFILE, FaultError, r"^too many files .*ulimit -n"), (errno.ESTALE, LocalInputError, r"\.JPEG .*[Ss]tale")],
)
def test_errors_of_the_system_are_no_reason_to_skip(
    number: int, error: type[Exception], told: str, workers: int, image_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def image(self: ImageFolder, i: int) -> LazyImage:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(ImageFolder, "image", image)
    with pytest.raises(error, match=told) as caught:
        loaders(image_root, "data.on_bad_image=skip", f"data.workers={workers}")
    assert "Traceback" not in str(caught.value)


RUN = [
    *("--config", "smoke.yaml", "data.source=folder", "data.workers=1", "augment.size=32", "eval.resize=36"),
    *("eval.crop=32", "eval.batch_size=4", "train.batch_size=8", "train.micro_batch=4", "train.epochs=2"),
    *("model.arch=resnext14_2x4d", "schedule.warmup=0", "log.every=2", "log.to=[]"),
]


def write_bad(root: Path) -> list[Path]:
    bad = [root / "train" / "dog" / "5.JPEG", root / "val" / "cat" / "1.JPEG"]
    for path in bad:
        path.write_bytes(b"")
    return bad


@pytest.mark.slow
def test_a_run_that_skips_counts_in_log_summary_and_evaluation(
    image_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = write_bad(image_root)
    run = tmp_path / "run"
    assert train([*RUN, f"data.root={image_root}", "data.on_bad_image=skip", "--out", str(run)]) == 0
    epochs = events(run, "epoch")
    assert [e["train_unreadable"] for e in epochs] == [1, 1]
    assert [(e["val_unreadable"], e["val_count"]) for e in epochs] == [(1, 8), (1, 8)]
    summary = json.loads((run / "summary.json").read_text())
    assert summary["unreadable"] == 2
    assert summary["best"]["count"] == 8
    told = [e["text"] for e in events(run, "unreadable")]
    assert len(told) == 3, "each once, and the validation image once an evaluation"
    assert all(any(str(path) in text for text in told) for path in bad)
    assert all(text in capsys.readouterr().err for text in told[:1])
    assert evaluate(["--ckpt", str(run / "checkpoints" / "last.pt"), "--json", str(tmp_path / "e.json")]) == 0
    result = json.loads((tmp_path / "e.json").read_text())
    assert (result["count"], result["unreadable"]) == (8, 1)
    said = capsys.readouterr()
    assert str(bad[1]) in said.err
    assert re.search(r"\bleft out\b.*: 1$", said.out, re.MULTILINE)


@pytest.mark.slow
def test_a_run_stops_at_a_bad_image_with_one_sentence(image_root: Path, tmp_path: Path, refuses: Refuses) -> None:
    (image_root / "train" / "dog" / "5.JPEG").write_bytes(b"\xff\xd8\xff\xe0 cut")
    told = refuses(train, *RUN, f"data.root={image_root}", "--out", str(tmp_path / "run"))
    assert "/dog/5.JPEG " in told
    assert json.loads((tmp_path / "run" / "state.json").read_text())["status"] == "failed"


@pytest.mark.slow
def test_a_worker_that_is_killed_says_so(
    image_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refuses: Refuses
) -> None:
    """As the system does it when memory runs out: every loader process gets SIGKILL at its third image."""
    read, count = ImageFolder.image, iter(range(99))

    def image(self: ImageFolder, i: int) -> LazyImage:
        if get_worker_info() and next(count) == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return read(self, i)

    monkeypatch.setattr(ImageFolder, "image", image)
    told = refuses(train, *RUN, f"data.root={image_root}", "--out", str(tmp_path / "run"))
    assert "killed" in told
    assert "data.workers" in told
    assert told.endswith(f"error: {events(tmp_path / 'run', 'failed')[0]['text']}\n")


@pytest.mark.slow
def test_loader_processes_that_give_nothing_end_the_run(
    image_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refuses: Refuses
) -> None:
    """As on a network disk that does not answer any more. The patience is 3 seconds."""
    out = tmp_path / "run"

    def image(self: ImageFolder, i: int) -> LazyImage:
        time.sleep(600)
        raise AssertionError("it is ended before")

    monkeypatch.setattr(ImageFolder, "image", image)
    told = refuses(train, *RUN, f"data.root={image_root}", "--out", str(out), "train.patience=0.05")
    assert "train.patience" in told
    assert told.endswith(f"error: {events(out, 'failed')[0]['text']}\n")
    assert state_of(out)["status"] == "failed"


def test_libtiff_prints_nothing_of_its_own(capfd: pytest.CaptureFixture[str]) -> None:
    file = io.BytesIO()
    Image.new("1", (64, 64)).save(file, "TIFF", compression="group4")
    data = file.getvalue()
    for place in range(8, 40):
        with suppress(BadImageError):
            decode(data[:place] + b"\xff" + data[place + 1 :])
    assert capfd.readouterr().err == ""


def test_libjpeg_prints_nothing_of_its_own(capfd: pytest.CaptureFixture[str]) -> None:
    data = bytearray(encode(photo(64, 64), "JPEG"))
    scan = data.index(b"\xff\xda") + 14
    data[scan + 20 : scan + 24] = b"\xff\xd3\xff\x01"  # markers that do not belong there
    for _ in range(3):
        decode(data)
    os.write(2, b"own")
    assert capfd.readouterr().err == "own"
