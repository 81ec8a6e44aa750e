"""Draws scenes, many at once, on any device.

N scenes, K shapes in a scene, H W picture height and width in pixels. Shapes are given by signed
distances in units of their radius: negative within, positive without. u goes right and v down.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from sdft.models.tiny.scenes import (
    BACKGROUNDS,
    COLOURS,
    MAX_COUNT,
    NEW_SHAPES,
    SHAPES,
    TEXTURES,
    Scene,
)

Distance = Callable[[Tensor, Tensor], Tensor]
"""From u and v to the signed distance; each may have any shape that goes with the others."""

PATTERN = 0.09
"""Period of stripes and dots as a share of the shorter side."""

FADED = 0.45
"""How far the light parts of a pattern are from the shape's colour to white."""

STAR_INNER = 0.45
"""Radius of a star's inner corners."""


def draw(
    scenes: Sequence[Scene],
    *,
    width: int,
    height: int,
    device: torch.device,
    distances: Mapping[str, Distance] | None = None,
) -> Tensor:
    """Return the pictures of scenes; shape [N, 3, H, W], uint8.

    `distances` are of the scenes' shapes, where these are none of this world.
    """
    distances = DISTANCES if distances is None else distances
    shorter = min(width, height)
    y_H = torch.arange(height, device=device, dtype=torch.float32) + 0.5
    x_W = torch.arange(width, device=device, dtype=torch.float32) + 0.5
    centres_NK2 = torch.full((len(scenes), MAX_COUNT, 2), -10.0)
    for number, scene in enumerate(scenes):
        centres_NK2[number, : scene.count] = torch.tensor(scene.centres)
    centres_NK2 = centres_NK2.to(device)
    radius_N = torch.tensor([scene.radius * shorter for scene in scenes], device=device)
    scale_N11 = radius_N[:, None, None]
    cover_NHW = torch.zeros(len(scenes), height, width, device=device)
    for shape in sorted({scene.shape for scene in scenes}):
        rows = [number for number, scene in enumerate(scenes) if scene.shape == shape]
        index = torch.tensor(rows, device=device)
        for slot in range(MAX_COUNT):
            centre_N2 = centres_NK2[index, slot]
            u = (x_W - centre_N2[:, :1] * width)[:, None, :] / scale_N11[index]
            v = (y_H - centre_N2[:, 1:] * height)[:, :, None] / scale_N11[index]
            distance = distances[shape](u, v)
            inside = (0.5 - distance * scale_N11[index]).clamp(0, 1)
            cover_NHW[index] = torch.maximum(cover_NHW[index], inside)
    shade = _fill(scenes, x_W, y_H, shorter, device)
    ground = _ground(scenes, y_H, height, device)
    picture_NCHW = ground + (shade - ground) * cover_NHW[:, None]
    return picture_NCHW.round().clamp(0, 255).to(torch.uint8)


def _fill(
    scenes: Sequence[Scene], x_W: Tensor, y_H: Tensor, shorter: int, device: torch.device
) -> Tensor:
    """Return the colours within the shapes; shape [N, 3, H, W]."""
    colour_N3 = torch.tensor([COLOURS[scene.colour] for scene in scenes], device=device).float()
    period = PATTERN * shorter
    stripes_HW = ((x_W[None, :] + y_H[:, None]) / period % 2 < 1).float()
    dots_HW = (
        ((x_W[None, :] / period % 1) - 0.5) ** 2 + ((y_H[:, None] / period % 1) - 0.5) ** 2 < 0.09
    ).float()
    patterns = {"plain": torch.zeros_like(dots_HW), "striped": stripes_HW, "dotted": dots_HW}
    table_THW = torch.stack([patterns[name] for name in TEXTURES])
    chosen = torch.tensor([TEXTURES.index(scene.texture) for scene in scenes], device=device)
    light_NHW = table_THW[chosen][:, None] * FADED
    return colour_N3[:, :, None, None] * (1 - light_NHW) + 255 * light_NHW


def _ground(scenes: Sequence[Scene], y_H: Tensor, height: int, device: torch.device) -> Tensor:
    """Return the grounds; shape [N, 3, H, 1]."""
    ground_N3 = torch.tensor([BACKGROUNDS[scene.background] for scene in scenes], device=device)
    gradient_N = torch.tensor([scene.gradient for scene in scenes], device=device)
    darker_NH = 1 - gradient_N[:, None] * (y_H / height)
    return ground_N3.float()[:, :, None, None] * darker_NH[:, None, :, None]


def _circle(u: Tensor, v: Tensor) -> Tensor:
    return (u**2 + v**2).sqrt() - 1


def _square(u: Tensor, v: Tensor) -> Tensor:
    return torch.maximum(u.abs(), v.abs()) - 0.86


def _triangle(u: Tensor, v: Tensor) -> Tensor:
    """Corners (0, -1), (0.95, 0.8) and (-0.95, 0.8)."""
    side = (1.8 * u.abs() - 0.95 * (v + 1)) / (1.8**2 + 0.95**2) ** 0.5
    return torch.maximum(v - 0.8, side)


def _star(u: Tensor, v: Tensor) -> Tensor:
    """Five corners, the first at the top; each fifth of the plane is folded onto one edge."""
    tenth = torch.pi / 5
    angle = torch.atan2(u, -v)
    folded = (angle % (2 * tenth) - tenth).abs() - tenth
    radius = (u**2 + v**2).sqrt()
    along, across = radius * folded.cos(), radius * folded.sin().abs()
    inner = torch.tensor(tenth)
    corner = (STAR_INNER * inner.cos(), STAR_INNER * inner.sin())
    edge = (corner[0] - 1, corner[1])
    length = (edge[0] ** 2 + edge[1] ** 2).sqrt()
    return ((along - 1) * edge[1] - across * edge[0]) / length


def _ring(u: Tensor, v: Tensor) -> Tensor:
    return ((u**2 + v**2).sqrt() - 0.75).abs() - 0.25


def _cross(u: Tensor, v: Tensor) -> Tensor:
    u, v = u.abs(), v.abs()
    upright = torch.maximum(u - 0.33, v - 1)
    lying = torch.maximum(u - 1, v - 0.33)
    return torch.minimum(upright, lying)


def _eclipse(u: Tensor, v: Tensor) -> Tensor:
    bite = ((u - 0.5) ** 2 + v**2).sqrt() - 0.75
    return torch.maximum(_circle(u, v), -bite)


DISTANCES: dict[str, Distance] = {
    "circle": _circle,
    "square": _square,
    "triangle": _triangle,
    "star": _star,
    "ring": _ring,
    "cross": _cross,
    "eclipse": _eclipse,
}
assert DISTANCES.keys() == {*SHAPES, *NEW_SHAPES}
