"""Decode JPEGs to RGB pixels by the fastest decoder that is installed. All of them give the same pixels.

On photographs and parts of them simplejpeg takes 0.93 to 0.95 of torchvision's time, TorchCodec 1.03, Pillow 1.4.
simplejpeg refuses what is out of the ordinary, and the first decoder after it that works decodes that. torchvision's
decoders are deprecated; TorchCodec, which took over their code, replaces them once they are gone.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple, cast

import numpy as np
import PIL
import torch
from PIL import Image
from torch import Tensor

from resnext_train.data.decode.jpeg_header import BadImageError, read_header
from resnext_train.data.decode.pillow_decoder import decode_with_pillow
from resnext_train.data.decode.silent_stderr import silent_stderr

REFUSALS = (BadImageError, RuntimeError, ValueError, KeyError, MemoryError)
"""What decoders raise on data that they do not decode; simplejpeg a KeyError for samplings that it has no name for."""

_EMPTY_APP1 = b"\xff\xe1\x00\x02"


class JpegDecoder(NamedTuple):
    """A library that decodes JPEGs."""

    name: str
    """The library and its version."""
    decode: Callable[[bytes | bytearray], Tensor]
    """Decode what begins as a JPEG to uint8 RGB (3, H, W), whatever EXIF says of its orientation; or raise one of
    REFUSALS."""
    complete: bool = True
    """Whether it reads all that others read, so that those that come after it are not needed."""


def load_simplejpeg() -> JpegDecoder:
    import simplejpeg

    def decode(data: bytes | bytearray) -> Tensor:
        if simplejpeg.decode_jpeg_header(data)[2] in ("CMYK", "YCCK"):
            raise ValueError("simplejpeg rounds these colours in its own way")
        # Strict: it refuses all damage, as not strict it would read past some that others refuse.
        return torch.from_numpy(simplejpeg.decode_jpeg(data, "RGB", strict=True)).permute(2, 0, 1)

    return JpegDecoder(f"simplejpeg {simplejpeg.__version__}", decode, complete=False)


def load_torchvision() -> JpegDecoder:
    """Return the operator behind torchvision.io.decode_jpeg.

    Silencing that function's deprecation warning would take as long as decoding 50 × 50 pixels.
    """
    import torchvision
    from torchvision.io import ImageReadMode

    operator, rgb = torch.ops.image.decode_jpeg, ImageReadMode.RGB.value

    def decode(data: bytes | bytearray) -> Tensor:
        with silent_stderr():  # libjpeg prints a line for each damage that it reads past
            return cast(Tensor, operator(_as_tensor(data), rgb, False))

    return JpegDecoder(f"torchvision {torchvision.__version__}", decode)


def load_torchcodec() -> JpegDecoder:
    import torchcodec
    from torchcodec.decoders import decode_jpeg as decode_and_turn

    def decode(data: bytes | bytearray) -> Tensor:
        # It turns images as the EXIF data in their first APP1 segment say: an empty one in front says nothing.
        unturned = bytearray().join([data[:2], _EMPTY_APP1, memoryview(data)[2:]])
        with silent_stderr():
            return cast(Tensor, decode_and_turn(_as_tensor(unturned), mode="RGB"))

    return JpegDecoder(f"TorchCodec {torchcodec.__version__}", decode)


def load_pillow() -> JpegDecoder:
    return JpegDecoder(f"Pillow {PIL.__version__}", decode_with_pillow)


def _as_tensor(data: bytes | bytearray) -> Tensor:
    # A bytearray: for read-only bytes torch would warn once that the tensor could be written to.
    return torch.frombuffer(data if isinstance(data, bytearray) else bytearray(data), dtype=torch.uint8)


LOADERS: dict[str, Callable[[], JpegDecoder]] = {
    "simplejpeg": load_simplejpeg,
    "torchvision": load_torchvision,
    "torchcodec": load_torchcodec,
    "pillow": load_pillow,
}
"""By library, in the order of preference. Each raises whatever an absent, broken or changed library raises."""


def find_decoders() -> tuple[tuple[JpegDecoder, ...], dict[str, str]]:
    """Return the decoders to try in turn, of which the last is complete, and why others are passed over, by library."""
    decoders: list[JpegDecoder] = []
    passed_over = {}
    try:
        torchvision: JpegDecoder | None = load_torchvision()
    except Exception:  # told below, where it is its turn
        torchvision = None
    for library, load in LOADERS.items():
        try:
            decoder = load()
            check_decoder(decoder, torchvision)
        except Exception as error:
            passed_over[library] = str(error).partition("\n")[0] or type(error).__name__
            continue
        decoders.append(decoder)
        if decoder.complete:
            break
    return tuple(decoders), passed_over


def check_decoder(decoder: JpegDecoder, torchvision: JpegDecoder | None) -> None:
    """Decode two samples: a black square left of a white one, which EXIF says to turn, and colours sampled as 4:4:0.

    torchvision 0.26 has an older libjpeg-turbo, which decodes the latter otherwise than newer ones. Of decoders beside
    it, its own are the pixels.

    Raises:
        ValueError: the square is turned or has other values, or the colours are other than those of `torchvision`.
    """
    exif, file = Image.Exif(), io.BytesIO()
    exif[0x0112] = 6
    expected = np.repeat(np.array([0, 255], np.uint8), 8) + np.zeros((8, 1), np.uint8)
    Image.fromarray(expected).save(file, "JPEG", exif=exif)
    pixels = decoder.decode(file.getvalue())
    if pixels.dtype != torch.uint8 or not np.array_equal(pixels.numpy(), np.stack([expected] * 3)):
        raise ValueError("it decodes a sample to other pixels")
    if torchvision and not torch.equal(decoder.decode(_SAMPLE_440), torchvision.decode(_SAMPLE_440)):
        raise ValueError(f"it decodes 4:4:0 to other pixels than {torchvision.name}")


def _sample_440() -> bytes:
    """Return a JPEG sampled as 4:4:0, which no library writes: one of 4:2:2 whose MCUs are stated as tall, not wide."""
    file = io.BytesIO()
    rows, columns = np.ogrid[:16, :16]
    pixels = np.stack([16 * rows + 0 * columns, 240 - 16 * columns + 0 * rows, 8 * (rows + columns)], axis=2)
    Image.fromarray(pixels.astype(np.uint8)).save(file, "JPEG", subsampling="4:2:2")
    data = bytearray(file.getvalue())
    data[read_header(data).frame + 11] = 0x12
    return bytes(data)


_SAMPLE_440 = _sample_440()

DECODERS, PASSED_OVER = find_decoders()


def decode_jpeg(data: bytes | bytearray) -> Tensor | None:
    """Decode what begins as a JPEG to uint8 RGB (3, H, W), or return None where all of DECODERS refuse it.

    EXIF orientation is ignored. Not for several threads at once: it exchanges the process's stderr.
    """
    for decoder in DECODERS:
        with suppress(*REFUSALS):
            return decoder.decode(data)
    return None


def decoder_names() -> list[str]:
    """Return the libraries that decode JPEGs, in the order in which they are tried, with their versions."""
    return list(dict.fromkeys([*(decoder.name for decoder in DECODERS), load_pillow().name]))


def describe_decoders() -> dict[str, Any]:
    """Return what logs hold of the choice: decoders by name, and why others are passed over, by library."""
    return {"decoders": decoder_names(), "passed_over": dict(PASSED_OVER)}
