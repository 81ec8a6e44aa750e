"""Looks at a picture and says which shape and which colour it shows; nothing in it is learnt.

In: pixels. Out: what is seen, None where it is nothing that the world of the tiny model has. It
knows the names and colours of that world, and nothing of how its pictures are drawn.

H W picture height and width; P pixels of the shape.

The grounds are grey, so what has colour is the shape. Its colour is the one that most of its pixels
are nearest to in hue. Its kind follows from the outline: whether it has a hole, how many bays lie
between it and its convex hull, and how much of its box it fills, or its hull does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from sdft.models.tiny.scenes import COLOURS

MIN_CHROMA = 45
"""Largest less smallest of red, green and blue, 0 .. 255, of a pixel that has colour."""

MIN_AREA = 0.01
"""Of the picture; less is no shape."""

MAX_OF_BORDER = 0.25
"""Where more of the picture's border has colour, it is the ground that has it."""

MIN_VOTES = 0.5
"""Share of a shape's pixels that are to be nearest to its colour."""

MIN_HOLE = 0.05
"""Of the filled shape; a smaller hole is dirt."""

MIN_BAY = 0.025
"""Of the convex hull; a smaller bay is a rough edge. A star's are 0.07, a cross's 0.1.

So is one that is nowhere two pixels wide and deep: along a slanted side there are long ones."""

HOLLOW_BAY = 0.06
"""Of the convex hull; where none is larger and there are not five, the sides are only bent in."""

ECLIPSE_BAY = 0.15
"""Of the convex hull: an eclipse's one bay is at least so large."""

FILLS = {"triangle": (0.35, 0.64), "circle": (0.64, 0.88), "square": (0.88, 1.0)}
"""Share of its box that a shape without bays fills: 1/2, pi/4 and 1 by rights."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What a picture shows."""

    shape: str | None
    colour: str | None


def look_at(rgb_HW3: np.ndarray) -> Seen:
    """Return what the largest shape of a picture is; pixels are uint8."""
    pixels = rgb_HW3.astype(np.int16)
    chroma_HW = pixels.max(axis=2) - pixels.min(axis=2)
    shape_HW = _largest_piece(chroma_HW >= MIN_CHROMA)
    if shape_HW.mean() < MIN_AREA or _border(shape_HW).mean() > MAX_OF_BORDER:
        return Seen(None, None)
    return Seen(_shape_of(shape_HW), _colour_of(rgb_HW3[shape_HW]))


def _colour_of(rgb_P3: np.ndarray) -> str | None:
    names = list(COLOURS)
    known_C = _hues(np.array([COLOURS[name] for name in names], dtype=np.float64))
    apart_PC = np.abs(_hues(rgb_P3.astype(np.float64))[:, None] - known_C[None])
    nearest_P = np.minimum(apart_PC, 6 - apart_PC).argmin(axis=1)
    votes_C = np.bincount(nearest_P, minlength=len(names))
    return names[int(votes_C.argmax())] if votes_C.max() > MIN_VOTES * len(rgb_P3) else None


def _hues(rgb_P3: np.ndarray) -> np.ndarray:
    """Return hues on a circle of 6: red at 0, green at 2, blue at 4."""
    red, green, blue = rgb_P3.T
    top, span = rgb_P3.max(axis=1), np.ptp(rgb_P3, axis=1)
    span = np.where(span == 0, 1, span)
    hue = np.where(top == red, (green - blue) / span, 0.0)
    hue = np.where((top == green) & (top != red), 2 + (blue - red) / span, hue)
    hue = np.where((top == blue) & (top != red) & (top != green), 4 + (red - green) / span, hue)
    return np.asarray(hue % 6)


def _shape_of(shape_HW: np.ndarray) -> str | None:
    holes = _pieces(~shape_HW, inner_only=True)
    num_hole_pixels = max((int(hole.sum()) for hole in holes), default=0)
    if num_hole_pixels / (shape_HW.sum() + num_hole_pixels) > MIN_HOLE:
        return "ring"
    hull_HW = _hull(shape_HW)
    sizes = [
        piece.sum() / hull_HW.sum() for piece in _pieces(hull_HW & ~shape_HW) if _is_deep(piece)
    ]
    bays = sorted((size for size in sizes if size > MIN_BAY), reverse=True)
    if len(bays) == 5:
        return "star"
    outline = _by_fill(hull_HW if bays else shape_HW)
    if len(bays) == 4 and outline == "circle":
        return "cross"
    if not bays or bays[0] < HOLLOW_BAY:
        return outline
    return "eclipse" if len(bays) < 3 and bays[0] > ECLIPSE_BAY else None


def _by_fill(shape_HW: np.ndarray) -> str | None:
    rows, columns = np.nonzero(shape_HW.any(axis=1))[0], np.nonzero(shape_HW.any(axis=0))[0]
    box = (rows[-1] - rows[0] + 1) * (columns[-1] - columns[0] + 1)
    fill = shape_HW.sum() / box
    return next((name for name, (low, high) in FILLS.items() if low < fill <= high), None)


def _hull(shape_HW: np.ndarray) -> np.ndarray:
    """Return the convex hull, filled."""
    points = [(int(x), int(y)) for y, x in np.argwhere(shape_HW)]
    points.sort()
    corners = _half_hull(points) + _half_hull(points[::-1])
    canvas = Image.new("1", (shape_HW.shape[1], shape_HW.shape[0]))
    ImageDraw.Draw(canvas).polygon(corners, fill=1, outline=1)
    hull_HW: np.ndarray = np.array(canvas) | shape_HW
    return hull_HW


def _half_hull(points: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return one side of the hull of sorted points, without its last corner."""
    chain: list[tuple[int, int]] = []
    for x, y in points:
        while len(chain) > 1:
            (x1, y1), (x2, y2) = chain[-2:]
            if (x2 - x1) * (y - y1) - (y2 - y1) * (x - x1) > 0:
                break
            chain.pop()
        chain.append((x, y))
    return chain[:-1]


def _is_deep(mask_HW: np.ndarray) -> bool:
    """Tell whether two by two pixels have room in the mask."""
    pairs_HW = mask_HW[:-1] & mask_HW[1:]
    return bool((pairs_HW[:, :-1] & pairs_HW[:, 1:]).any())


def _largest_piece(mask_HW: np.ndarray) -> np.ndarray:
    pieces = [np.zeros_like(mask_HW), *_pieces(mask_HW)]
    return pieces[int(np.argmax([piece.sum() for piece in pieces]))]


def _pieces(mask_HW: np.ndarray, *, inner_only: bool = False) -> list[np.ndarray]:
    """Return the connected pieces of a mask; diagonal neighbours are apart.

    With `inner_only`, those that touch the edge of the picture are left out.
    """
    runs = _runs(mask_HW)
    parents = list(range(len(runs)))

    def first_of(number: int) -> int:
        while parents[number] != number:
            number = parents[number]
        return number

    earlier = 0
    for number, (row, left, right) in enumerate(runs):
        while runs[earlier][0] < row - 1:
            earlier += 1
        above = earlier
        while runs[above][0] == row - 1:
            if runs[above][1] < right and runs[above][2] > left:
                parents[first_of(number)] = first_of(above)
            above += 1
    pieces: dict[int, np.ndarray] = {}
    for number, (row, left, right) in enumerate(runs):
        piece = pieces.setdefault(first_of(number), np.zeros_like(mask_HW))
        piece[row, left:right] = True
    return [piece for piece in pieces.values() if not (inner_only and _border(piece).any())]


def _runs(mask_HW: np.ndarray) -> list[tuple[int, int, int]]:
    """Return row, first column and the column after the last of each run, from the top."""
    steps = np.diff(mask_HW.astype(np.int8), axis=1, prepend=0, append=0)
    starts, ends = np.argwhere(steps == 1), np.argwhere(steps == -1)
    return [
        (int(row), int(left), int(right))
        for (row, left), (_, right) in zip(starts, ends, strict=True)
    ]


def _border(mask_HW: np.ndarray) -> np.ndarray:
    """Return the outermost pixels, in one row."""
    return np.concatenate([mask_HW[0], mask_HW[-1], mask_HW[:, 0], mask_HW[:, -1]])
