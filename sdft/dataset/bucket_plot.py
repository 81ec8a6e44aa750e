"""Draws how the images are spread over the buckets.

In: the rows of the table. Out: a PNG: a bar of images for each bucket, its shape, what is cut off.
Drawn with Pillow, which is here anyway.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from sdft.dataset.report import BucketRow, mean_crop, waste
from sdft.files import whole_file

ROW_PX = 34
SHAPE_PX = 26
"""Longest side of a bucket's outline."""

NAME_PX = 190
BAR_PX = 560
FIGURES_PX = 250
MARGIN_PX = 16
FONT_PX = 14

PAPER = (252, 252, 250)
INK = (38, 38, 42)
BAR = (76, 114, 176)
REPEATED = (196, 210, 232)
CUT = (196, 78, 82)


def draw_buckets(path: Path, rows: Sequence[BucketRow], batch_sizes: Sequence[int]) -> None:
    """Write the picture.

    Raises: EnvironmentFault where the file cannot be written.
    """
    width = 2 * MARGIN_PX + SHAPE_PX + NAME_PX + BAR_PX + FIGURES_PX
    height = 2 * MARGIN_PX + ROW_PX * (len(rows) + 2)
    image = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(FONT_PX)
    num_images = sum(row.images for row in rows)
    title = (
        f"{num_images} images in {len(rows)} buckets, {sum(row.batches for row in rows)} batches "
        f"an epoch; {mean_crop(rows):.1%} of an image cut off, "
        f"{waste(rows, batch_sizes):.1%} of places empty"
    )
    draw.text((MARGIN_PX, MARGIN_PX), title, fill=INK, font=font)
    legend = "dark: images; light: uses with repeats; red: share that is cut off"
    draw.text((MARGIN_PX, MARGIN_PX + ROW_PX * 0.7), legend, fill=INK, font=font)
    most = max((row.repeats for row in rows), default=1)
    several = len({row.dataset for row in rows}) > 1
    for number, row in enumerate(rows):
        top = MARGIN_PX + ROW_PX * (number + 2)
        _draw_row(draw, font, row, top, most=most, several=several)
    with whole_file(path) as part:
        image.save(part, format="PNG")


def _draw_row(
    draw: ImageDraw.ImageDraw,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    row: BucketRow,
    top: float,
    *,
    most: int,
    several: bool,
) -> None:
    width, height = row.resolution
    scale = SHAPE_PX / max(width, height)
    shape = (width * scale, height * scale)
    left = MARGIN_PX + (SHAPE_PX - shape[0]) / 2
    upper = top + (SHAPE_PX - shape[1]) / 2
    draw.rectangle((left, upper, left + shape[0], upper + shape[1]), outline=INK)
    name = f"{width} x {height}" + (f"  (dataset {row.dataset + 1})" if several else "")
    start = MARGIN_PX + SHAPE_PX + 12
    draw.text((start, top + 5), name, fill=INK, font=font)
    start += NAME_PX - 12
    for count, colour in ((row.repeats, REPEATED), (row.images, BAR)):
        draw.rectangle((start, top, start + BAR_PX * count / most, top + 16), fill=colour)
    draw.rectangle((start, top + 19, start + BAR_PX * row.mean_crop, top + 23), fill=CUT)
    figures = f"{row.images} images, {row.batches} batches, {row.mean_crop:.1%} cut"
    draw.text((start + BAR_PX + 12, top + 3), figures, fill=INK, font=font)
