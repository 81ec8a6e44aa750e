"""Reads how large a picture is from the first bytes of its file, without its pixels.

PNG, JPEG and WebP are read here, since Pillow reads a whole WebP to open it and checks for
monsters only after it has made room for them; the rare kinds are opened by Pillow.

The EXIF orientation is the only part of EXIF that is looked at. In a PNG it counts only where it
stands before the pixels: finding it behind them would mean to read the whole file.
"""

from __future__ import annotations

import re
import struct
import warnings
import zlib
from dataclasses import dataclass
from typing import BinaryIO

from PIL import Image

from sdft.dataset.records import Size
from sdft.errors import DataError

MAX_PIXELS = 178_956_970
"""Larger pictures are refused. Twice Pillow's MAX_IMAGE_PIXELS, where Pillow itself stops: decoded
to RGB such a picture takes half a gigabyte for each worker, and no training resolution needs it."""

PILLOW_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "AVIF")
"""What Pillow may open. Its other readers, some of which start programs, stay out."""

DECODER_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    EOFError,
    AttributeError,
    MemoryError,
    RuntimeError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)
"""What Pillow raises on files that are broken in one way or another, found by damaging files."""

_ORIENTATION_TAG = 0x0112

_FROM_PILLOW = re.compile(r"PIL\.")


class UnreadableImage(DataError):
    """A file that does not hold a picture that can be read; `what` is the reason in words."""


@dataclass(frozen=True, slots=True)
class Header:
    stored: Size
    """As the pixels lie in the file."""
    orientation: int
    """EXIF's 1 .. 8; 1 is upright."""

    @property
    def upright(self) -> Size:
        return self.stored if self.orientation < 5 else (self.stored[1], self.stored[0])


def read(file: BinaryIO) -> Header:
    """Return what the header says.

    Raises: UnreadableImage; OSError where the file cannot be read at all.
    """
    start = file.read(32)
    try:
        if start.startswith(b"\x89PNG\r\n\x1a\n"):
            header = _png(file)
        elif start.startswith(b"\xff\xd8\xff"):
            header = _jpeg(file)
        elif start[:4] == b"RIFF" and start[8:12] == b"WEBP":
            header = _webp(file)
        elif _is_rare_kind(start):
            header = _by_pillow(file)
        else:
            raise UnreadableImage(_what_else(start))
    except (struct.error, IndexError) as error:
        raise UnreadableImage("the file is cut off within its header") from error
    width, height = header.stored
    if width < 1 or height < 1:
        raise UnreadableImage(f"its header says {width} x {height} px")
    if width * height > MAX_PIXELS:
        raise UnreadableImage(
            f"{width} x {height} px are {width * height / 1e6:.0f} million pixels, "
            f"more than the limit of {MAX_PIXELS / 1e6:.0f} million; make a smaller copy"
        )
    return header


def silence_pillow() -> None:
    """Keep Pillow's warnings off for good.

    They name no file, and what they warn of is checked here. A filter for the length of a call
    would not do: filters belong to the process, and many threads decode at once.
    """
    if not any(entry[0] == "ignore" and entry[3] == _FROM_PILLOW for entry in warnings.filters):
        warnings.filterwarnings("ignore", module=_FROM_PILLOW.pattern)


def orientation_of(exif: bytes) -> int:
    """Return the orientation that an EXIF block asks for; 1 where it says nothing legal."""
    tiff = exif.removeprefix(b"Exif\0\0")
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    if order is None:
        return 1
    try:
        (directory,) = struct.unpack_from(order + "I", tiff, 4)
        (num_entries,) = struct.unpack_from(order + "H", tiff, directory)
        for number in range(num_entries):
            tag, kind, _, value = struct.unpack_from(
                order + "HHIH", tiff, directory + 2 + 12 * number
            )
            if tag == _ORIENTATION_TAG:
                return int(value) if kind == 3 and 1 <= value <= 8 else 1
    except struct.error:
        return 1
    return 1


def _png(file: BinaryIO) -> Header:
    """Source: PNG specification, third edition, sections 5.3, 11.2.1 and 11.3.4.5."""
    size: Size | None = None
    orientation = 1
    file.seek(8)
    while True:
        length, kind = struct.unpack(">I4s", file.read(8))
        if kind == b"IHDR":
            size = struct.unpack(">II", file.read(8))
            file.seek(length - 8 + 4, 1)
        elif kind == b"eXIf" and length < 1 << 24:
            orientation = orientation_of(file.read(length))
            file.seek(4, 1)
        elif kind in (b"IDAT", b"IEND"):
            break
        else:
            file.seek(length + 4, 1)
        if size is None:
            raise UnreadableImage("a PNG file that does not begin with its header")
    if size is None or kind == b"IEND":
        raise UnreadableImage("a PNG file without pixels")
    return Header(size, orientation)


def _jpeg(file: BinaryIO) -> Header:
    """Source: ITU-T T.81, annex B; EXIF lies in an APP1 segment."""
    exif = b""
    file.seek(2)
    while True:
        marker = file.read(2)
        while marker[0] == 0xFF and marker[1] == 0xFF:
            marker = marker[1:] + file.read(1)
        kind = marker[1]
        if marker[0] != 0xFF:
            raise UnreadableImage("a JPEG file whose header is damaged")
        if kind == 0x01 or 0xD0 <= kind <= 0xD7:
            continue
        if kind in (0xD9, 0xDA):
            raise UnreadableImage("a JPEG file without a size")
        (length,) = struct.unpack(">H", file.read(2))
        if 0xC0 <= kind <= 0xCF and kind not in (0xC4, 0xC8, 0xCC):
            _, height, width = struct.unpack(">BHH", file.read(5))
            return Header((width, height), orientation_of(exif))
        if kind == 0xE1:
            content = file.read(length - 2)
            exif = exif or (content if content.startswith(b"Exif\0\0") else b"")
        else:
            file.seek(length - 2, 1)


def _webp(file: BinaryIO) -> Header:
    """Source: RFC 9649, section 2; the size in a key frame of VP8: RFC 6386, section 9.1."""
    size: Size | None = None
    file.seek(12)
    while True:
        chunk = file.read(8)
        if len(chunk) < 8 and size is not None:
            return Header(size, 1)
        kind, length = struct.unpack("<4sI", chunk)
        end = file.tell() + length + length % 2
        if kind == b"VP8X":
            flags, *sides = struct.unpack("<B3xHBHB", file.read(10))
            size = (1 + sides[0] + (sides[1] << 16), 1 + sides[2] + (sides[3] << 16))
            if not flags & 0x08:
                return Header(size, 1)
        elif kind == b"VP8 " and size is None:
            width, height = struct.unpack("<6xHH", file.read(10))
            return Header((width & 0x3FFF, height & 0x3FFF), 1)
        elif kind == b"VP8L" and size is None:
            (bits,) = struct.unpack("<xI", file.read(5))
            return Header((1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)), 1)
        elif kind == b"EXIF" and size is not None:
            return Header(size, orientation_of(file.read(length)))
        file.seek(end)


def _by_pillow(file: BinaryIO) -> Header:
    silence_pillow()
    file.seek(0)
    try:
        with Image.open(file, formats=PILLOW_FORMATS) as image:
            # Pillow turns a TIFF by itself, and its size is already the upright one.
            is_turned = image.format == "TIFF"
            exif = b"" if is_turned else image.info.get("exif", b"")
            return Header(image.size, orientation_of(exif))
    except Image.DecompressionBombError as error:
        raise UnreadableImage(
            f"more pixels than the limit of {MAX_PIXELS / 1e6:.0f} million; make a smaller copy"
        ) from error
    except DECODER_ERRORS as error:
        raise UnreadableImage(f"the header cannot be read ({in_words(error)})") from error


def in_words(error: BaseException) -> str:
    """Return a decoder's message on one line, or the error's name where it has no message."""
    return " ".join(str(error).split()) or type(error).__name__


def _is_rare_kind(start: bytes) -> bool:
    return (
        start.startswith((b"BM", b"GIF87a", b"GIF89a", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"))
        or start[4:8] == b"ftyp"
    )


def _what_else(start: bytes) -> str:
    """Say what a file is that is no picture."""
    if not start:
        return "the file is empty (0 bytes)"
    kinds = "PNG, JPEG, WebP, BMP, GIF, TIFF or AVIF"
    if all(byte >= 32 or byte in b"\t\n\r\f" for byte in start):
        return f"the file holds text, not a picture ({kinds})"
    return f"the content is not that of a picture ({kinds})"
