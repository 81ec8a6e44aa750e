"""The one place where pictures are decoded, turned upright, resized and cut.

Whatever the file holds, out comes RGB with 8 bits: the first frame of an animation, turned as EXIF
asks, transparent parts on white, 16 bits scaled down. Colour profiles are not applied: Stable
Diffusion was trained on pixel values as they stand in the files, and so does sd-scripts.

White stands behind transparent parts although sd-scripts shows the colours that lie under them:
those are what an editor happened to leave there, often black, and nobody has seen them.
"""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from sdft.dataset import headers, resample
from sdft.dataset.headers import UnreadableImage
from sdft.dataset.objects import StatedPath
from sdft.dataset.records import Box, Size

__all__ = ["PREPROCESSING_VERSION", "UnreadableImage", "decode_rgb", "fit", "read_header"]

PREPROCESSING_VERSION = 1
"""Goes up whenever `decode_rgb` or `fit` gives other bits for one and the same input."""

_TURNS: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda rgb: rgb,
    2: lambda rgb: rgb[:, ::-1],
    3: lambda rgb: rgb[::-1, ::-1],
    4: lambda rgb: rgb[::-1],
    5: lambda rgb: rgb.transpose(1, 0, 2),
    6: lambda rgb: rgb[::-1].transpose(1, 0, 2),
    7: lambda rgb: rgb[::-1, ::-1].transpose(1, 0, 2),
    8: lambda rgb: rgb[:, ::-1].transpose(1, 0, 2),
}
"""What makes a picture upright. Source: EXIF 2.3, tag Orientation."""


def read_header(path: Path) -> Size:
    """Return the upright size without decoding a pixel.

    Raises: UnreadableImage; OSError where the file cannot be read at all.
    """
    opened = BytesIO(path.read_bytes()) if isinstance(path, StatedPath) else path.open("rb")
    with opened as file:
        return headers.read(file).upright


def decode_rgb(source: Path | bytes) -> np.ndarray:
    """Return the upright picture.

    Shapes: uint8 [H, W, 3] out.
    Raises: UnreadableImage with the reason in `what`; OSError where the file cannot be read.
    """
    content = source if isinstance(source, bytes) else source.read_bytes()
    try:
        header = headers.read(BytesIO(content))
        headers.silence_pillow()
        try:
            with Image.open(BytesIO(content), formats=headers.PILLOW_FORMATS) as image:
                rgb_HWC = _to_rgb(image)
        except headers.DECODER_ERRORS as error:
            raise UnreadableImage(f"cannot be decoded ({headers.in_words(error)})") from error
        if rgb_HWC.shape[:2] != header.stored[::-1]:
            raise UnreadableImage(
                f"its header says {header.stored[0]} x {header.stored[1]} px, "
                f"its pixels are {rgb_HWC.shape[1]} x {rgb_HWC.shape[0]}"
            )
    except UnreadableImage as error:
        if isinstance(source, bytes):
            raise
        raise UnreadableImage(error.problems[0].what, where=str(source)) from error
    return upright(rgb_HWC, header.orientation)


def other_size(expected: Size, found: Size, *, is_same_file: bool) -> str:
    """Say that a picture is not as large as the plan was made for."""
    was, now = (f"{width} x {height} px" for width, height in (expected, found))
    if is_same_file:
        # A header of this very file would have been right, so the size was given.
        return f"it is {now}, and the metadata file says {was}; mend image_size there"
    return f"it was {was} when it was indexed and is {now} now"


def upright(pixels_HWC: np.ndarray, orientation: int) -> np.ndarray:
    """Return pixels as they lie in a file turned as its EXIF `orientation` (1 .. 8) asks."""
    return np.ascontiguousarray(_TURNS[orientation](pixels_HWC))


def fit(rgb_HWC: np.ndarray, resized: Size, crop: Box, interpolation: str | None) -> np.ndarray:
    """Return the `crop` of the picture made `resized` large.

    Without `interpolation` a picture that shrinks is averaged over areas, and one that grows in
    a side goes through Pillow's Lanczos. Else it is one of lanczos, box (Pillow's) or nearest,
    bilinear, linear, bicubic, cubic, area (OpenCV's, which do not smooth before shrinking but
    for area).

    Shapes: uint8 [H, W, 3] in; uint8 [crop height, crop width, 3] out, contiguous.
    """
    left, top, right, bottom = crop
    height, width = rgb_HWC.shape[:2]
    shrinks = resized[0] <= width and resized[1] <= height
    if resized == (width, height):
        return np.ascontiguousarray(rgb_HWC[top:bottom, left:right])
    name = _SAME_AS.get(interpolation or "", interpolation) or ("area" if shrinks else "lanczos")
    if name == "area" and shrinks:
        return resample.by_area(rgb_HWC, resized[1], resized[0], (top, bottom), (left, right))
    if name in resample.KERNELS:
        rows, columns = (top, bottom), (left, right)
        return resample.by_kernel(rgb_HWC, resized[1], resized[0], rows, columns, name)
    image = Image.fromarray(rgb_HWC).resize(resized, _PILLOW_FILTERS[name])
    return np.array(image.crop(crop))


_SAME_AS = {"bilinear": "linear", "bicubic": "cubic"}
_PILLOW_FILTERS = {"lanczos": Image.Resampling.LANCZOS, "box": Image.Resampling.BOX}


def _to_rgb(image: Image.Image) -> np.ndarray:
    """Decode the open picture as it lies in the file, not yet upright."""
    if image.mode.startswith("I") or image.mode == "F":
        return _grey_to_rgb(image)
    if not image.has_transparency_data:
        return np.asarray(image.convert("RGB"))
    # Pillow turns premultiplied grey with alpha into plain grey with alpha only.
    rgba = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
    white = Image.new("RGBA", rgba.size, "white")
    return np.asarray(Image.alpha_composite(white, rgba).convert("RGB"))


def _grey_to_rgb(image: Image.Image) -> np.ndarray:
    """Bring grey of 16 or 32 bits, or of floats, to 8 bits.

    Pillow's own conversion would clip 16 bits at 255 and make nearly everything white.
    """
    grey_HW = np.asarray(image)
    if image.mode == "F":
        low, high = float(grey_HW.min()), float(grey_HW.max())
        if not (low >= 0 and high <= 255):
            raise ValueError(f"floats from {low:g} to {high:g}; only 0..1 or 0..255 have a meaning")
        levels_HW = np.rint(grey_HW * (255 if high <= 1 else 1)).astype(np.uint8)
    else:
        if int(grey_HW.min()) < 0 or int(grey_HW.max()) > 0xFFFF:
            raise ValueError("whole numbers of more than 16 bits have no agreed white")
        # 65535 / 255 = 257: adding half of it before the division rounds.
        levels_HW = ((grey_HW.astype(np.uint32) + 128) // 257).astype(np.uint8)
    clear = image.info.get("transparency")
    if isinstance(clear, int):
        levels_HW[grey_HW == clear] = 255
    return np.repeat(levels_HW[:, :, None], 3, axis=2)
