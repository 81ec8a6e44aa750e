"""The world that the tiny model knows: coloured shapes, and captions that tell of them.

In: a seed and a number. Out: a Scene and a caption for it, the same every time. Needs no torch.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

SIDE_PX = 64
"""The pictures that the tiny model draws best. Their latents are 8 x 8, and 1 x 1 on the U-Net's
lowest level."""

SHAPES = ("circle", "square", "triangle", "star", "ring", "cross")
"""What the base model has seen."""

NEW_SHAPES = ("eclipse",)
"""What it has never seen; the demo teaches it: a disc with a bite, as the sun in an eclipse."""

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (220, 30, 30),
    "green": (30, 160, 50),
    "blue": (40, 70, 220),
    "yellow": (240, 210, 30),
    "purple": (140, 40, 170),
    "orange": (240, 130, 20),
    "cyan": (30, 190, 210),
    "pink": (240, 120, 180),
}
"""Red, green and blue, 0 .. 255."""

BACKGROUNDS: dict[str, tuple[int, int, int]] = {
    "white": (245, 245, 245),
    "grey": (150, 150, 150),
    "black": (20, 20, 20),
}

TEXTURES = ("plain", "striped", "dotted")
SIZES = ("small", "medium", "large")
PLACES = ("left", "right", "top", "bottom", "middle")
COUNT_WORDS = ("a", "two", "three")
MAX_COUNT = len(COUNT_WORDS)

_RADIUS = {"small": (0.17, 0.21), "medium": (0.25, 0.30), "large": (0.35, 0.41)}
"""Of the shorter side."""
_RADIUS_OF_SEVERAL = (0.14, 0.20)
_JITTER = 0.05
_CENTRES_OF_TWO = ((0.27, 0.5), (0.73, 0.5))
_CENTRES_OF_THREE = ((0.27, 0.3), (0.73, 0.3), (0.5, 0.73))


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """Equal shapes on one ground."""

    shape: str
    colour: str
    texture: str = "plain"
    size: str = "medium"
    place: str = "middle"
    background: str = "white"
    gradient: float = 0.0
    """How much darker the ground is at the bottom, 0 .. 0.3."""
    centres: tuple[tuple[float, float], ...] = ((0.5, 0.5),)
    """Across and down, as shares of width and height."""
    radius: float = 0.26
    """As a share of the shorter side."""

    @property
    def count(self) -> int:
        return len(self.centres)


def draw_scene(*address: object, shapes: Sequence[str] = SHAPES, plain: bool = False) -> Scene:
    """Return the scene of an address; a `plain` one is a single shape in the middle."""
    draws = random.Random("/".join(map(str, ("scene", *address))))
    count = 1 if plain else draws.choices((1, 2, 3), weights=(8, 1, 1))[0]
    size = draws.choice(SIZES) if count == 1 else "small"
    place = draws.choice(PLACES) if count == 1 and size == "small" and not plain else "middle"
    low, high = _RADIUS[size] if count == 1 else _RADIUS_OF_SEVERAL
    return Scene(
        shape=draws.choice(list(shapes)),
        colour=draws.choice(list(COLOURS)),
        texture="plain" if plain else draws.choices(TEXTURES, weights=(6, 1, 1))[0],
        size=size,
        place=place,
        background=draws.choice(list(BACKGROUNDS)),
        gradient=draws.choice((0.0, 0.0, 0.2)),
        centres=tuple(_near(centre, draws) for centre in _centres(count, place)),
        radius=draws.uniform(low, high),
    )


def _centres(count: int, place: str) -> Sequence[tuple[float, float]]:
    if count == 1:
        across = {"left": 0.25, "right": 0.75}.get(place, 0.5)
        down = {"top": 0.25, "bottom": 0.75}.get(place, 0.5)
        return [(across, down)]
    return _CENTRES_OF_TWO if count == 2 else _CENTRES_OF_THREE


def _near(centre: tuple[float, float], draws: random.Random) -> tuple[float, float]:
    across, down = centre
    return across + draws.uniform(-_JITTER, _JITTER), down + draws.uniform(-_JITTER, _JITTER)


def caption_of(scene: Scene, *address: object) -> str:
    """Return one of the captions that are true of a scene; each leaves something out."""
    draws = random.Random("/".join(map(str, ("caption", *address))))
    if draws.random() < 0.15:
        return _tags(scene, draws)
    words = [scene.colour, plural(scene.shape) if scene.count > 1 else scene.shape]
    if scene.texture != "plain":
        words.insert(0, scene.texture)
    if scene.count == 1 and scene.size != "medium" and draws.random() < 0.5:
        words.insert(0, scene.size)
    phrase = " ".join(words)
    text = f"{_article(scene, phrase)} {phrase}"
    if scene.place != "middle" and draws.random() < 0.7:
        text += f" on the {scene.place}" if scene.place in ("left", "right") else ""
        text += f" at the {scene.place}" if scene.place in ("top", "bottom") else ""
    if draws.random() < 0.35:
        text += f" on a {scene.background} background"
    beginning = draws.choices(("", "a picture of ", "a drawing of "), weights=(6, 1, 1))[0]
    return beginning + text


def plural(shape: str) -> str:
    return shape + ("es" if shape.endswith("s") else "s")


def _article(scene: Scene, phrase: str) -> str:
    if scene.count > 1:
        return COUNT_WORDS[scene.count - 1]
    return indefinite(phrase)


def indefinite(phrase: str) -> str:
    """Return the article before a phrase of one thing."""
    return "an" if phrase[0] in "aeiou" else "a"


def _tags(scene: Scene, draws: random.Random) -> str:
    tags = [scene.colour, scene.shape, f"{scene.background} background"]
    if scene.texture != "plain":
        tags.append(scene.texture)
    if scene.count == 1 and scene.size != "medium":
        tags.append(scene.size)
    if scene.count > 1:
        tags.append(f"{COUNT_WORDS[scene.count - 1]} {plural(scene.shape)}")
    draws.shuffle(tags)
    return ", ".join(tags)
