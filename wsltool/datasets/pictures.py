"""Encoded pictures: their size from the header, and their pixels as RGB.

What is decided for pictures that are not plain 8-bit RGB:

==========================  ==========================================================
grey, 1 bit, palette        spread to RGB
grey and colour, 16 bit     the high byte, as libpng strips it
transparency, any kind      laid over white, as on the page that annotators saw
CMYK and YCCK JPEG          Adobe's inverted values; ``R = (255 - C) (255 - K) / 255``
animation, several pages    the first frame
EXIF orientation            ignored unless asked for; a TIFF's own tag is always applied
float, 32-bit, 12-bit, Lab  refused: they have no agreed range on a screen
more than 2**27 pixels      refused from the header, before anything is unpacked
==========================  ==========================================================

All functions may run in many threads at once. Nothing of Pillow's global state is used or
changed; its warnings about odd files are ignored, since whatever matters is raised.
"""

from __future__ import annotations

import io
import re
import warnings
from pathlib import Path
from typing import IO, Literal

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.PpmImagePlugin import PpmImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from wsltool.errors import BadImageError

__all__ = ["EXTENSIONS", "MAX_NUM_PIXELS", "Orientation", "decode", "read_size"]

Orientation = Literal["ignored", "applied"]

MAX_NUM_PIXELS = 2**27
"""Pictures with more pixels are refused: 402 MB as RGB, 11585 x 11585."""

EXTENSIONS = frozenset(
    (".jpg", ".jpeg", ".png", ".gif", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm")
)
"""File name endings (lower case) that make a file a picture."""

_FORMATS: tuple[tuple[bytes, type[ImageFile]], ...] = (
    (b"\xff\xd8\xff", JpegImageFile),
    (b"\x89PNG\r\n\x1a\n", PngImageFile),
    (b"GIF8", GifImageFile),
    (b"BM", BmpImageFile),
    (b"RIFF", WebPImageFile),
    (b"II*\x00", TiffImageFile),
    (b"MM\x00*", TiffImageFile),
    *((b"P%d" % digit, PpmImageFile) for digit in range(1, 7)),
)
_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_PILLOW = re.compile(r"PIL\.")
_ALPHA_MODES = frozenset(("LA", "La", "PA", "RGBA", "RGBa"))
_PLAIN_MODES = frozenset(("1", "L", "P", "RGB", "CMYK", "YCbCr"))


def read_size(path: Path, orientation: Orientation = "ignored") -> tuple[int, int]:
    """Width and height in pixels, from the header alone.

    Parameters
    ----------
    path
        A JPEG, PNG, GIF, BMP, WebP, TIFF or PPM file, whatever its name ends in.
    orientation
        ``applied`` gives the size that `decode` gives with the same choice.

    Raises
    ------
    BadImageError
        No such file, nothing in it, no picture, a broken header, or more than
        `MAX_NUM_PIXELS` pixels. The pixels themselves are not looked at.
    """
    try:
        with path.open("rb") as file:
            picture = _open(file)
            width, height = picture.size
            turned = orientation == "applied" and _exif_orientation(picture) >= 5
            return (height, width) if turned else (width, height)
    except BadImageError as error:
        raise BadImageError(f"{path.name}: {error}") from error
    except OSError as error:
        raise BadImageError(f"{path.name}: cannot be opened, {error.strerror}.") from error


def decode(
    data: bytes | bytearray | memoryview, orientation: Orientation = "ignored"
) -> npt.NDArray[np.uint8]:
    """Decode an encoded picture to RGB.

    Parameters
    ----------
    data
        The whole file.
    orientation
        Whether an EXIF orientation tag turns the picture; annotations are usually made in
        the frame as stored.

    Returns
    -------
    picture_HWC
        Uint8, (H, W, 3), C-contiguous, writable, RGB.

    Raises
    ------
    BadImageError
        No picture, truncated, too many pixels, or of a kind that has no agreed range.
    """
    picture = _open(io.BytesIO(data))
    try:
        picture.load()
    except MemoryError:
        raise
    except Exception as error:  # decoders fail on hostile bytes in every class there is
        raise _undecodable(picture, error, len(data)) from error
    image = _as_rgb(picture)
    turn = _exif_orientation(picture) if orientation == "applied" else 1
    if turn in _TRANSPOSE:
        image = image.transpose(_TRANSPOSE[turn])
    return np.array(image)


def _open(file: IO[bytes]) -> ImageFile:
    """Read the header only, without Pillow's registry and its process-wide pixel limit."""
    _ignore_pillow_warnings()
    start = file.read(16)
    file.seek(0)
    if not start:
        raise BadImageError("the file is empty (0 bytes).")
    reader = next((reader for magic, reader in _FORMATS if start.startswith(magic)), None)
    if reader is None:
        raise BadImageError(
            f"no picture, it starts with {start!r}; "
            "expected JPEG, PNG, GIF, BMP, WebP, TIFF or PPM."
        )
    try:
        picture = reader(file)
    except Image.DecompressionBombError as error:
        raise BadImageError(f"{reader.format} has too many pixels: {error}") from error
    except MemoryError:
        raise
    except Exception as error:  # as in `decode`
        raise BadImageError(
            f"{reader.format} header is broken or cut off: {_told(error)}."
        ) from error
    width, height = picture.size
    if width * height > MAX_NUM_PIXELS:
        raise BadImageError(
            f"{reader.format} has {width}x{height} pixels; the limit is {MAX_NUM_PIXELS}."
        )
    return picture


def _undecodable(picture: ImageFile, error: Exception, num_bytes: int) -> BadImageError:
    if isinstance(error, EOFError) or "truncated" in str(error).lower():
        return BadImageError(f"{picture.format} is truncated at byte {num_bytes}.")
    return BadImageError(f"{picture.format} cannot be decoded: {_told(error)}.")


def _told(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__


def _as_rgb(picture: ImageFile) -> Image.Image:
    if picture.mode in _ALPHA_MODES or (
        picture.mode in _PLAIN_MODES and "transparency" in picture.info
    ):
        rgba = picture.convert("RGBA")
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, rgba).convert("RGB")
    if picture.mode == "RGB":
        return picture
    if picture.mode in _PLAIN_MODES:
        return picture.convert("RGB")
    if _is_16_bit_grey(picture):
        grey_HW = (np.asarray(picture).astype(np.int64) >> 8).astype(np.uint8)
        return Image.fromarray(grey_HW).convert("RGB")
    raise BadImageError(
        f"{picture.format} holds values of kind {picture.mode}, which have no agreed range; "
        "convert it to 8 or 16 bits a channel."
    )


def _is_16_bit_grey(picture: ImageFile) -> bool:
    if isinstance(picture, TiffImageFile):
        tags = picture.tag_v2
        is_black_zero = tags.get(ExifTags.Base.PhotometricInterpretation) == 1
        return (
            picture.mode.startswith("I;16")
            and is_black_zero
            and tags.get(ExifTags.Base.BitsPerSample) == (16,)
        )
    if isinstance(picture, PpmImageFile):  # scales every maximum above 255 to 65535
        return picture.mode == "I"
    return picture.mode == "I;16"


def _exif_orientation(picture: ImageFile) -> int:
    """EXIF orientation, 1 where there is none or it cannot be read."""
    if isinstance(picture, TiffImageFile):  # Pillow has applied it
        return 1
    try:
        value = picture.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # a broken tag turns nothing
        return 1
    return value if isinstance(value, int) else 1


def _ignore_pillow_warnings() -> None:
    """See to a filter that ignores them; it stays, since a scope would not be thread-safe."""
    if not any(entry[3] == _PILLOW for entry in warnings.filters):
        warnings.filterwarnings("ignore", module=_PILLOW.pattern)
