"""Pictures as taggers and captioners want them.

In: upright RGB pixels. Out: RGB pixels of the model's size. Pure; may run in many threads.
H W source height and width.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image

from sdft.dataset.resample import by_area

Pixels = npt.NDArray[np.uint8]

WHITE = 255

MAX_SQUARE_PX = 8192
"""Of pictures with a longer side that side shrinks before the border is added: a strip of
30,000 x 10 px would else become a square of 2.7 GB. For others one step is twice as fast."""


def white_square(rgb_HWC: Pixels, side: int) -> Pixels:
    """Return the picture centred on a white square, made `side` large.

    An odd pixel of border goes right or below. Squares that shrink are averaged over areas, those
    that grow go through Pillow's Lanczos.

    Shapes: uint8 [H, W, 3] in, [side, side, 3] out.
    Source: the WD14 taggers' preprocessing, reference section 1.5.
    """
    height, width = rgb_HWC.shape[:2]
    full = max(height, width)
    if full < side:
        return _resized(_bordered(rgb_HWC, full, full), side, side)
    rows = columns = full
    if full > MAX_SQUARE_PX and width >= height:
        columns = side
        rgb_HWC = by_area(rgb_HWC, height, columns, (0, height), (0, columns))
    elif full > MAX_SQUARE_PX:
        rows = side
        rgb_HWC = by_area(rgb_HWC, rows, width, (0, rows), (0, width))
    square_HWC = _bordered(rgb_HWC, rows, columns)
    return by_area(square_HWC, side, side, (0, side), (0, side))


def edge_filled(rgb_HWC: Pixels, height: int, width: int, *, by: str) -> Pixels:
    """Return the picture fitted inside height x width, its edge pixels repeated to the border.

    `by` is `area`, as DeepDanbooru has it, or `lanczos`, as the web UI feeds its torch port. A
    picture that grows always goes through Lanczos.

    Shapes: uint8 [H, W, 3] in, [height, width, 3] out.
    Source: reference, other-formats.
    """
    source_height, source_width = rgb_HWC.shape[:2]
    scale = min(height / source_height, width / source_width)
    fitted_height = max(1, min(height, round(source_height * scale)))
    fitted_width = max(1, min(width, round(source_width * scale)))
    shrinks = fitted_height <= source_height and fitted_width <= source_width
    if by == "area" and shrinks:
        rows, columns = (0, fitted_height), (0, fitted_width)
        rgb_HWC = by_area(rgb_HWC, fitted_height, fitted_width, rows, columns)
    else:
        rgb_HWC = _resized(rgb_HWC, fitted_height, fitted_width)
    top, left = (height - fitted_height) // 2, (width - fitted_width) // 2
    bottom, right = height - fitted_height - top, width - fitted_width - left
    return np.pad(rgb_HWC, ((top, bottom), (left, right), (0, 0)), mode="edge")


def stretched(rgb_HWC: Pixels, height: int, width: int) -> Pixels:
    """Return the picture made height x width by Pillow's bicubic, proportions not kept."""
    image = Image.fromarray(rgb_HWC)
    return np.asarray(image.resize((width, height), Image.Resampling.BICUBIC))


def normalised(
    batch_BHWC: npt.NDArray[np.uint8],
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
) -> npt.NDArray[np.float32]:
    """Return (pixels / 255 - mean) / std with the channels first.

    Shapes: uint8 [B, H, W, 3] in, float32 [B, 3, H, W] out.
    """
    scaled_BHWC = batch_BHWC.astype(np.float32) * np.float32(1 / 255)
    scaled_BHWC -= np.asarray(mean, dtype=np.float32)
    scaled_BHWC /= np.asarray(std, dtype=np.float32)
    return np.ascontiguousarray(scaled_BHWC.transpose(0, 3, 1, 2))


def _bordered(rgb_HWC: Pixels, height: int, width: int) -> Pixels:
    square_HWC = np.full((height, width, 3), WHITE, dtype=np.uint8)
    top, left = (height - rgb_HWC.shape[0]) // 2, (width - rgb_HWC.shape[1]) // 2
    square_HWC[top : top + rgb_HWC.shape[0], left : left + rgb_HWC.shape[1]] = rgb_HWC
    return square_HWC


def _resized(rgb_HWC: Pixels, height: int, width: int) -> Pixels:
    image = Image.fromarray(np.ascontiguousarray(rgb_HWC))
    return np.asarray(image.resize((width, height), Image.Resampling.LANCZOS))
