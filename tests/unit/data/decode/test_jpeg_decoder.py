"""All decoders of JPEG give torchvision's pixels, and damage has the same outcome whichever of them is there."""

from __future__ import annotations

import functools
import importlib.util
import io
import random
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.io import ImageReadMode
from torchvision.io import decode_jpeg as torchvision_decode

from resnext_train.data.decode import jpeg_decoder
from resnext_train.data.decode.jpeg_decoder import LOADERS, REFUSALS, JpegDecoder, check_decoder, find_decoders
from resnext_train.data.decode.jpeg_header import BadImageError, is_jpeg, read_header
from resnext_train.data.decode.lazy_image import decode, open_image
from resnext_train.data.decode.restart_markers import find_segments

CHAINS = ("torchvision", "torchcodec", "pillow", "simplejpeg", "simplejpeg torchvision", "simplejpeg torchcodec")
ORIENTATION = 0x0112
SAMPLINGS = ("4:4:4", "4:2:2", "4:2:0")


def load(library: str) -> JpegDecoder:
    if importlib.util.find_spec({"pillow": "PIL"}.get(library, library)) is None:
        pytest.skip(f"{library} is not installed")
    decoder = LOADERS[library]()
    try:
        check_decoder(decoder, LOADERS["torchvision"]())
    except ValueError as error:
        if "4:4:0" in str(error):  # what else it does wrong, the tests find
            pytest.skip(f"{decoder.name} is passed over here: {error}")
    return decoder


@pytest.fixture(params=CHAINS)
def chain(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> tuple[JpegDecoder, ...]:
    """The decoders that JPEGs are decoded by, instead of those that were found."""
    decoders = tuple(load(library) for library in request.param.split())
    monkeypatch.setattr(jpeg_decoder, "DECODERS", decoders)
    return decoders


def photo(width: int, height: int) -> Image.Image:
    coarse = np.random.default_rng(0).integers(0, 256, (9, 11, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def encode(image: Image.Image, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=85, **options)
    return file.getvalue()


def exif(orientation: int) -> Image.Exif:
    tags = Image.Exif()
    tags[ORIENTATION] = orientation
    return tags


def ycck(cmyk: bytes) -> bytes:
    """Change the colour space that Adobe's segment states."""
    data = bytearray(cmyk)
    at = data.index(b"Adobe") + 11
    assert data[at] == 0
    data[at] = 2
    return bytes(data)


def resampled(data: bytes, sampling: int) -> bytes:
    """Change the header's sampling of Y to another with as many blocks in an MCU, and MCUs in the image."""
    changed = bytearray(data)
    at = read_header(data).frame + 11
    assert changed[at] == 0x22
    changed[at] = sampling
    return bytes(changed)


def intact() -> dict[str, bytes]:
    image = photo(83, 61)
    found = {
        f"{sampling}{' progressive' * progressive}{f' restart {restart}' * bool(restart)}": encode(
            image, subsampling=sampling, progressive=progressive, restart_marker_blocks=restart
        )
        for sampling in SAMPLINGS
        for progressive in (False, True)
        for restart in (0, 3)
    }
    for width, height in ((1, 1), (2, 3), (7, 9), (17, 33), (5, 70)):
        found |= {f"{width}×{height} {s}": encode(photo(width, height), subsampling=s) for s in SAMPLINGS}
    tall = encode(photo(64, 64), subsampling="4:2:0")
    found |= {"4:4:1": resampled(tall, 0x14), "4:1:1": resampled(tall, 0x41)}
    cmyk = encode(image.convert("CMYK"))
    found |= {
        "gray": encode(image.convert("L")),
        "gray progressive": encode(image.convert("L"), progressive=True),
        "CMYK": cmyk,
        "CMYK progressive": encode(image.convert("CMYK"), progressive=True),
        "YCCK": ycck(cmyk),
        "RGB": encode(image, keep_rgb=True),
        "behind an XMP segment": encode(image, xmp=b"<x:xmpmeta/>", exif=exif(6)),
        "bytes behind its end": encode(image) + b"more",
    }
    return found | {f"orientation {n}": encode(image, exif=exif(n)) for n in range(1, 9)}


INTACT = intact()


def reference(data: bytes) -> torch.Tensor:
    pixels: torch.Tensor = torchvision_decode(
        torch.frombuffer(bytearray(data), dtype=torch.uint8), mode=ImageReadMode.RGB
    )
    return pixels


@pytest.mark.parametrize("kind", INTACT)
def test_pixels_are_torchvisions(kind: str, chain: tuple[JpegDecoder, ...]) -> None:
    assert torch.equal(decode(INTACT[kind]), reference(INTACT[kind]))


@pytest.mark.parametrize("library", LOADERS)
def test_each_decoder_reads_all_itself_but_for_simplejpeg(library: str) -> None:
    decoder = load(library)
    refused = {"CMYK", "CMYK progressive", "YCCK", "4:4:1"} if library == "simplejpeg" else set[str]()
    for kind, data in INTACT.items():
        for given in (data, bytearray(data)):
            if kind in refused:
                with pytest.raises(REFUSALS):
                    decoder.decode(given)
            else:
                assert torch.equal(decoder.decode(given), reference(data)), kind
    assert decoder.complete == (not refused)


@pytest.mark.parametrize("sampling", [*SAMPLINGS, "gray"])
def test_parts_have_the_pixels_of_the_whole(sampling: str, chain: tuple[JpegDecoder, ...]) -> None:
    options = {} if sampling == "gray" else {"subsampling": sampling}
    rng = random.Random(sampling)
    for width, height in ((96, 61), (83, 80), (33, 90)):
        image = photo(width, height)
        data = encode(image.convert("L") if sampling == "gray" else image, restart_marker_blocks=1, **options)
        whole, segments = reference(data), find_segments(data, read_header(data))
        assert segments is not None
        for _ in range(8):
            h, w = rng.randint(1, height), rng.randint(1, width)
            top, left = rng.randint(0, height - h), rng.randint(0, width - w)
            part = bytes(segments.cut(top, left, h, w)[0])
            assert torch.equal(chain[0].decode(part), reference(part))
            assert torch.equal(open_image(data).region(top, left, h, w), whole[:, top : top + h, left : left + w])


def test_only_the_part_is_decoded(chain: tuple[JpegDecoder, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []

    def counted(decoder: JpegDecoder) -> JpegDecoder:
        def decode(data: bytes | bytearray) -> torch.Tensor:
            sizes.append(len(data))
            return decoder.decode(data)

        return decoder._replace(decode=decode)

    monkeypatch.setattr(jpeg_decoder, "DECODERS", tuple(counted(decoder) for decoder in chain))
    data = encode(photo(640, 480), restart_marker_blocks=4)
    open_image(data).region(200, 300, 64, 64)
    assert len(sizes) == 1
    assert sizes[0] < len(data) / 4


def mutated(data: bytes, rng: random.Random) -> bytes:
    changed = bytearray(data)
    at = rng.randrange(2, len(data))
    kind = rng.randrange(5)
    if kind == 0:
        del changed[at:]
    elif kind == 1:
        del changed[at : at + rng.choice((1, 2, 100))]
    elif kind == 2:
        changed[at:at] = rng.randbytes(3)
    elif kind == 3:
        changed[at:] = b"\xff\xd9"
    else:
        changed[at] ^= rng.randrange(1, 256)
    return bytes(changed)


def damaged() -> list[bytes]:
    rng = random.Random(0)
    bases = [INTACT[kind] for kind in ("4:2:0", "4:2:0 restart 3", "4:2:2 progressive", "CMYK", "orientation 6")]
    good = bases[1]
    cuts = [good[:n] for n in (0, 1, 2, 3, 4, 20, 300, 620, len(good) - 100, len(good) - 2, len(good) - 1)]
    garbage = [b"\xff\xd8\xff" + rng.randbytes(500), bytes(500), good[:300] + bytes(len(good) - 300)]
    return [*cuts, *garbage, *(mutated(rng.choice(bases), rng) for _ in range(120))]


def outcome(decoded: Callable[[], Any], refusal: type[Exception]) -> Any:
    try:
        return decoded()
    except refusal:
        return None


def expected(data: bytes) -> tuple[str, Any]:
    """What torchvision makes of the data; what it refuses, Pillow; and which of them."""
    if not is_jpeg(data) or outcome(lambda: open_image(data), BadImageError) is None:
        return "neither", None
    if (pixels := outcome(lambda: reference(data), RuntimeError)) is not None:
        return "torchvision", pixels
    image = outcome(lambda: np.array(Image.open(io.BytesIO(data)).convert("RGB")), Exception)
    return ("neither", None) if image is None else ("Pillow", torch.from_numpy(image).permute(2, 0, 1))


def test_damage_has_the_same_outcome_without_a_word(
    chain: tuple[JpegDecoder, ...], capfd: pytest.CaptureFixture[str]
) -> None:
    cases = damaged()
    expectations = [expected(data) for data in cases]
    assert {who for who, _ in expectations} >= {"torchvision", "neither"}
    assert "Corrupt JPEG data" in capfd.readouterr().err, "as torchvision prints it, which reads past some damage"
    for data, (who, pixels) in zip(cases, expectations, strict=True):
        found = outcome(functools.partial(decode, data), BadImageError)
        assert (found is None) == (pixels is None), (who, data[:40])
        assert pixels is None or torch.equal(found, pixels), who
    assert capfd.readouterr() == ("", "")


def without(monkeypatch: pytest.MonkeyPatch, *libraries: str) -> None:
    for library in libraries:
        if library == "torchvision":
            monkeypatch.setattr(torch.ops, "image", torch._ops._OpNamespace("gone"))
        else:
            monkeypatch.setitem(sys.modules, library, None)


def names(decoders: tuple[JpegDecoder, ...]) -> list[str]:
    return [decoder.name.split()[0].lower() for decoder in decoders]


def test_the_fastest_comes_first_and_a_complete_one_last() -> None:
    load("simplejpeg")
    assert names(jpeg_decoder.DECODERS) == ["simplejpeg", "torchvision"]
    assert [name.split()[0] for name in jpeg_decoder.decoder_names()] == ["simplejpeg", "torchvision", "Pillow"]


def test_an_operator_that_is_gone_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    load("torchcodec")
    without(monkeypatch, "simplejpeg", "torchvision")
    decoders, passed_over = find_decoders()
    assert names(decoders) == ["torchcodec"]
    assert list(passed_over) == ["simplejpeg", "torchvision"]
    assert "decode_jpeg" in passed_over["torchvision"]


def test_pillow_is_what_remains(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = reference(INTACT["CMYK"])
    without(monkeypatch, "simplejpeg", "torchvision", "torchcodec")
    decoders, passed_over = find_decoders()
    assert list(passed_over) == ["simplejpeg", "torchvision", "torchcodec"]
    monkeypatch.setattr(jpeg_decoder, "DECODERS", decoders)
    assert [name.split()[0] for name in jpeg_decoder.decoder_names()] == ["Pillow"]
    assert torch.equal(decode(INTACT["CMYK"]), whole)


def turned(data: bytes | bytearray) -> torch.Tensor:
    return torchvision_decode(  # type: ignore[no-any-return]
        torch.frombuffer(bytearray(data), dtype=torch.uint8), mode=ImageReadMode.RGB, apply_exif_orientation=True
    )


def brighter(data: bytes | bytearray) -> torch.Tensor:
    return reference(bytes(data)).clamp(1)


def other_type(data: bytes | bytearray) -> torch.Tensor:
    return reference(bytes(data)).float()


def broken(data: bytes | bytearray) -> torch.Tensor:
    raise TypeError("decode_jpeg() takes 2 positional arguments but 3 were given")


@pytest.mark.parametrize("changed", [turned, brighter, other_type, broken])
def test_a_decoder_that_does_other_than_it_did_is_passed_over(
    changed: Callable[[bytes | bytearray], torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(LOADERS, "simplejpeg", lambda: JpegDecoder("simplejpeg 99", changed, complete=False))
    decoders, passed_over = find_decoders()
    assert names(decoders) == ["torchvision"]
    assert passed_over["simplejpeg"]
