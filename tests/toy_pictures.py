"""Small pictures with captions, for trying things out in tests.

Each shows one shape in one colour on a coloured ground, and its caption says exactly that, so that
a model can be seen to learn. The same seed gives the same pictures.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw

from sdft.files import whole_file, write_text
from sdft.streams import stream

SHAPES = ("circle", "square", "triangle", "star", "ring", "cross")

COLOURS = {
    "red": (214, 40, 40),
    "green": (56, 150, 66),
    "blue": (38, 84, 200),
    "yellow": (240, 200, 40),
    "purple": (122, 52, 160),
    "orange": (240, 130, 30),
    "black": (24, 24, 28),
    "white": (246, 246, 242),
}

EXTENTS = {"small": 0.22, "big": 0.42}
"""Half the width of a shape, as a share of the picture's shorter side."""

PROPORTIONS = (
    (1.0, 1.0),
    (1.5, 1.0),
    (1.0, 1.5),
    (1.25, 1.0),
    (1.0, 1.25),
    (2.0, 1.0),
    (1.0, 2.0),
    (1.75, 1.25),
    (1.125, 1.375),
)
"""Width and height of the pictures, one after the other, in parts of the side asked for."""

_OVERSAMPLING = 4
"""Drawn this much larger and made smaller, for smooth edges."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """What is on a picture."""

    shape: str
    colour: str
    ground: str
    extent: str
    size: tuple[int, int]
    """Width and height in pixels."""

    @property
    def caption(self) -> str:
        return f"a {self.extent} {self.colour} {self.shape} on a {self.ground} background"


def plan_pictures(num_pictures: int, *, side_px: int, seed: int) -> tuple[Picture, ...]:
    """Choose what to draw; no two of the first hundreds have the same caption."""
    chooser = stream("pictures", seed)
    colours = list(COLOURS)
    everything = [
        (shape, colour, ground, extent)
        for extent in EXTENTS
        for shape in SHAPES
        for colour in colours
        for ground in colours
        if ground != colour
    ]
    chooser.shuffle(everything)
    pictures = []
    for number in range(num_pictures):
        shape, colour, ground, extent = everything[number % len(everything)]
        wide, high = PROPORTIONS[number % len(PROPORTIONS)]
        pictures.append(
            Picture(
                shape=shape,
                colour=colour,
                ground=ground,
                extent=extent,
                size=(round(side_px * wide), round(side_px * high)),
            )
        )
    return tuple(pictures)


def draw(picture: Picture) -> Image.Image:
    """Return the picture in RGB."""
    width, height = (side * _OVERSAMPLING for side in picture.size)
    canvas = Image.new("RGB", (width, height), COLOURS[picture.ground])
    pen = ImageDraw.Draw(canvas)
    radius = EXTENTS[picture.extent] * min(width, height)
    _draw_shape(pen, picture, (width / 2, height / 2), radius)
    return canvas.resize(picture.size, Image.Resampling.BOX)


def write_pictures(
    folder: Path,
    num_pictures: int,
    *,
    side_px: int = 128,
    seed: int = 1,
    caption_extension: str = ".txt",
) -> tuple[Path, ...]:
    """Write pictures and captions of the same stem into `folder`; return the pictures' paths.

    The first nine all differ in size. Every third is a JPEG, the others are PNG.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number, picture in enumerate(plan_pictures(num_pictures, side_px=side_px, seed=seed)):
        suffix = ".jpg" if number % 3 == 2 else ".png"
        path = folder / f"{number + 1:03d}-{picture.colour}-{picture.shape}{suffix}"
        with whole_file(path) as part:
            draw(picture).save(part, "JPEG" if suffix == ".jpg" else "PNG", quality=92)
        write_text(path.with_suffix(caption_extension), picture.caption + "\n")
        paths.append(path)
    return tuple(paths)


def _draw_shape(
    pen: ImageDraw.ImageDraw, picture: Picture, centre: tuple[float, float], radius: float
) -> None:
    x, y = centre
    box = (x - radius, y - radius, x + radius, y + radius)
    colour = COLOURS[picture.colour]
    match picture.shape:
        case "circle":
            pen.ellipse(box, fill=colour)
        case "ring":
            pen.ellipse(box, outline=colour, width=round(radius * 0.35))
        case "square":
            pen.rectangle(box, fill=colour)
        case "cross":
            bar = radius * 0.33
            pen.rectangle((x - bar, y - radius, x + bar, y + radius), fill=colour)
            pen.rectangle((x - radius, y - bar, x + radius, y + bar), fill=colour)
        case "triangle":
            pen.polygon(_around(centre, [radius] * 3), fill=colour)
        case _:
            pen.polygon(_around(centre, [radius, radius * 0.42] * 5), fill=colour)


def _around(centre: tuple[float, float], radii: Sequence[float]) -> list[tuple[float, float]]:
    """Return corners around a centre, the first one on top."""
    x, y = centre
    turn = 2 * math.pi / len(radii)
    return [
        (x + radius * math.sin(turn * corner), y - radius * math.cos(turn * corner))
        for corner, radius in enumerate(radii)
    ]
