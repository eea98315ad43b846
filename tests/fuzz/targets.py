"""What the mutated bytes are fed to, and what may come of it."""

from __future__ import annotations

import functools
import json
import random
from collections.abc import Callable
from contextlib import suppress
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import torch

from fuzz import seeds
from fuzz.mutations import mutated, mutated_pack, signed
from resnext_train.data.decode import jpeg_decoder
from resnext_train.data.decode.jpeg_header import BadImageError, is_jpeg, read_header
from resnext_train.data.decode.lazy_image import LazyImage, decode, open_image
from resnext_train.data.decode.restart_markers import find_segments
from resnext_train.data.sources.packed_images import PackedImages
from resnext_train.data.transforms.crop_transforms import EvalTransform
from resnext_train.errors import InputError
from resnext_train.prepare.check_images import check
from resnext_train.prepare.file_formats import oddity
from resnext_train.prepare.pack_records import make_record

REFUSALS = (BadImageError, OSError, InputError)
"""What code may raise on bad input. Any other exception is a finding."""


class Case(NamedTuple):
    """An input, and what is done with it."""

    target: str
    seed: str
    """What it was made from."""
    files: seeds.Pack
    """A pack, or a single file called "image"."""
    draw: int
    """Seed of the random boxes."""
    unchanged: bool


class Cases:
    """The cases of a seed by number. A case depends on both alone, but for the random ids of packs."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._images, self._packs = seeds.images(), seeds.packs()
        self._names, self._data = list(self._images), list(self._images.values())

    def case(self, number: int) -> Case:
        """Return case `number`: first all images unchanged, later one in 50."""
        rng = random.Random(f"{self._seed}/{number}")
        draw = rng.randrange(2**32)
        if number < len(self._names) or rng.random() < 0.02:
            name = self._names[number] if number < len(self._names) else rng.choice(self._names)
            return Case("same pixels", name, {"image": self._images[name]}, draw, unchanged=True)
        target = rng.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
        if target.startswith("pack"):
            name = rng.choice(list(self._packs))
            files = mutated_pack(self._packs[name], rng)
            return Case(target, name, signed(files) if target == "pack check" else files, draw, unchanged=False)
        name = rng.choice(self._names)
        return Case(target, name, {"image": mutated(self._images[name], self._data, rng)}, draw, unchanged=False)


def store(case: Case, number: int, folder: Path) -> None:
    """Write a case to `folder`, replacing the one before, so that it is there when it ends the process."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.iterdir():
        path.unlink()
    for name, data in case.files.items():
        (folder / name).write_bytes(data)
    about = {"number": number, "target": case.target, "seed": case.seed, "draw": case.draw}
    (folder / "case.json").write_text(json.dumps(about) + "\n")


def run(case: Case, folder: Path) -> str:
    """Run a case that is stored in `folder`; return "read" or "refused".

    Raises:
        Exception: a finding.
    """
    try:
        TARGETS[case.target](case, folder, random.Random(case.draw))
    except REFUSALS as error:
        if case.unchanged:
            raise AssertionError(f"an intact image is refused: {error}") from error
        return "refused"
    return "read"


def _box(image: LazyImage, rng: random.Random) -> tuple[int, int, int, int]:
    height, width = rng.randint(1, image.height), rng.randint(1, image.width)
    if rng.random() < 0.3:
        height, width = min(3, height), min(3, width)
    return rng.randint(0, image.height - height), rng.randint(0, image.width - width), height, width


def _same_pixels(case: Case, folder: Path, rng: random.Random) -> None:
    image, whole = open_image(case.files["image"]), decode(case.files["image"])
    for _ in range(20):
        top, left, height, width = box = _box(image, rng)
        if not torch.equal(image.region(*box), whole[:, top : top + height, left : left + width]):
            raise AssertionError(f"the box {box} decoded alone has other pixels than in the whole image")


def _read_boxes(image: LazyImage, rng: random.Random) -> None:
    for _ in range(2):
        box = _box(image, rng)
        part = image.region(*box)
        if part.dtype != torch.uint8 or part.shape != (3, *box[2:]):
            raise AssertionError(f"the box {box} has the shape {tuple(part.shape)}")


def _region(case: Case, folder: Path, rng: random.Random) -> None:
    _read_boxes(open_image(case.files["image"]), rng)


def _segments(case: Case, folder: Path, rng: random.Random) -> None:
    data = case.files["image"]
    header = read_header(data)
    found = find_segments(data, header)
    if found is not None:
        for _ in range(3):
            height, width = rng.randint(1, header.height), rng.randint(1, header.width)
            top, left = rng.randint(0, header.height - height), rng.randint(0, header.width - width)
            small, y, x = found.cut(top, left, height, width)
            inner = read_header(small)
            if y + height > inner.height or x + width > inner.width:
                raise AssertionError("the part that was cut does not cover the box")


def _decode(case: Case, folder: Path, rng: random.Random) -> None:
    data = case.files["image"]
    image = open_image(data)
    pixels = decode(data)
    if pixels.dtype != torch.uint8 or pixels.shape != (3, image.height, image.width):
        raise AssertionError(f"{image.width} × {image.height} pixels became the shape {tuple(pixels.shape)}")


def _decoders(case: Case, folder: Path, rng: random.Random) -> None:
    data = case.files["image"]
    open_image(data)
    pixels: dict[str, torch.Tensor] = {}
    for name, decode_jpeg in _jpeg_decoders().items() if is_jpeg(data) else ():
        with suppress(*jpeg_decoder.REFUSALS):
            pixels[name] = decode_jpeg(data)
    for name, other in pairwise(pixels):
        if not torch.equal(pixels[name], pixels[other]):
            raise AssertionError(f"{name} and {other} decode it to different pixels")
    if not pixels:
        raise BadImageError("no JPEG, or none that a decoder of JPEG reads")


@functools.cache
def _jpeg_decoders() -> dict[str, Callable[[bytes | bytearray], torch.Tensor]]:
    """Return those that are installed, by library, whether they are used or not."""
    return {
        library: load().decode
        for library, load in jpeg_decoder.LOADERS.items()
        if find_spec({"pillow": "PIL"}.get(library, library)) is not None
    }


def _evaluate(case: Case, folder: Path, rng: random.Random) -> None:
    size = rng.choice((32, 224, 384))
    crop = EvalTransform(size, size, rng.choice(("bicubic", "bilinear")))(open_image(case.files["image"]))
    if crop.shape != (3, size, size):
        raise AssertionError(f"a crop has the shape {tuple(crop.shape)}")


def _record(tier: str) -> Callable[[Case, Path, random.Random], None]:
    def make(case: Case, folder: Path, rng: random.Random) -> None:
        make_record(case.files["image"], f"c/{case.seed}", seeds.tiers()[tier], verify=rng.random() < 0.5)

    return make


def _oddity(case: Case, folder: Path, rng: random.Random) -> None:
    oddity(case.files["image"], rng.choice(("a/b.JPEG", "b.png", "c", ".")))


def _pack(case: Case, folder: Path, rng: random.Random) -> None:
    pack = PackedImages(folder)
    if len(pack.labels) != len(pack):
        raise AssertionError("labels and images differ in number")
    refused: list[Exception] = []
    for i in range(len(pack)):
        pack.name(i)
        try:
            _read_boxes(pack.image(i), rng)
        except REFUSALS as error:  # the next image may be read nevertheless
            refused.append(error)
    if len(refused) == len(pack):
        raise refused[0]


def _check(case: Case, folder: Path, rng: random.Random) -> None:
    check(folder, 1, lambda text: None)


TARGETS: dict[str, Callable[[Case, Path, random.Random], Any]] = {
    "same pixels": _same_pixels,
    "header": lambda case, folder, rng: read_header(case.files["image"]),
    "segments": _segments,
    "region": _region,
    "decode": _decode,
    "decoders": _decoders,
    "evaluate": _evaluate,
    "oddity": _oddity,
    "exact record": _record("exact"),
    "resized record": _record("resized"),
    "raw record": _record("raw"),
    "pack": _pack,
    "pack check": _check,
}

WEIGHTS = {
    **{"header": 5, "segments": 10, "region": 20, "decode": 10, "decoders": 10, "evaluate": 5, "oddity": 2},
    **{"exact record": 3, "resized record": 3, "raw record": 3, "pack": 20, "pack check": 4},
}
"""How often each is drawn; those that start jpegtran seldom, as it takes most of the time."""
