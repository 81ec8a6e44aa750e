"""Which parts of a picture count in the loss.

In: the bytes of a picture with transparency, or of a mask picture. Out: a mask that went the way
of the picture itself (turned, resized, cut), one value for each latent cell.
"""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from sdft.dataset import headers
from sdft.dataset.headers import UnreadableImage
from sdft.dataset.pixels import decode_rgb, fit, upright
from sdft.dataset.records import Box, Size

MaskKind = Literal["alpha", "picture"]
"""The alpha channel of the picture itself, or the red channel of a picture of its own."""

PIXELS_PER_CELL = 8
"""As in sdft.models.vae, which cannot be imported without torch."""

MASK_EXTENSIONS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".avif")

MAX_SHAPE_DIFFERENCE = 0.01
"""A mask may be larger or smaller than its picture, but not wider or narrower than this share."""


def decode_mask(content: bytes, kind: MaskKind) -> np.ndarray:
    """Return the upright mask: 255 counts, 0 does not.

    A picture without transparency counts everywhere.

    Shapes: uint8 [H, W] out.
    Raises: UnreadableImage.
    """
    if kind == "picture":
        return np.ascontiguousarray(decode_rgb(content)[..., 0])
    header = headers.read(BytesIO(content))
    headers.silence_pillow()
    try:
        with Image.open(BytesIO(content), formats=headers.PILLOW_FORMATS) as image:
            alpha_HW = _alpha(image)
    except headers.DECODER_ERRORS as error:
        raise UnreadableImage(f"cannot be decoded ({headers.in_words(error)})") from error
    return upright(alpha_HW[..., None], header.orientation)[..., 0]


def fit_mask(mask_HW: np.ndarray, resized: Size, crop: Box) -> np.ndarray:
    """Return the share of each latent cell that counts, for a picture that became `crop`.

    Shapes: uint8 [H, W] in; float32 [crop height / 8, crop width / 8] out, 0 .. 1.
    """
    fitted_HW = fit(mask_HW[..., None], resized, crop, "area")[..., 0]
    rows, columns = (side // PIXELS_PER_CELL for side in fitted_HW.shape)
    cells = fitted_HW.reshape(rows, PIXELS_PER_CELL, columns, PIXELS_PER_CELL)
    means_hw: np.ndarray = cells.mean(axis=(1, 3), dtype=np.float32) / np.float32(255)
    return means_hw


def shape_problem(mask_HW: np.ndarray, picture: Size) -> str:
    """Return what is wrong with a mask's shape beside its picture's, or an empty text."""
    height, width = mask_HW.shape
    difference = abs(width * picture[1] / (height * picture[0]) - 1)
    if difference <= MAX_SHAPE_DIFFERENCE:
        return ""
    return f"the mask is {width} x {height} px and its picture {picture[0]} x {picture[1]} px"


def find_masks(folder: Path, *, recursive: bool) -> dict[str, Path]:
    """Return the mask pictures of a folder by their path within it, without the extension.

    Raises: OSError where the folder cannot be read.
    """
    entries = sorted(folder.rglob("*") if recursive else folder.iterdir())
    return {
        path.relative_to(folder).with_suffix("").as_posix(): path
        for path in entries
        if path.suffix.lower() in MASK_EXTENSIONS
    }


def _alpha(image: Image.Image) -> np.ndarray:
    """Return uint8 [H, W] as it lies in the file."""
    if not image.has_transparency_data:
        return np.full((image.height, image.width), 255, dtype=np.uint8)
    # Pillow turns premultiplied grey with alpha into plain grey with alpha only.
    plain = image.convert("LA") if image.mode == "La" else image
    return np.asarray(plain.convert("RGBA"))[..., 3]
