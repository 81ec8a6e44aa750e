"""A concept that the tiny model has never seen: pictures to learn it from, and a score.

In: a folder, or a model and how many pictures to draw. Out: pictures with captions; how many of
the drawn ones show what was asked for, as a checker without learnt parts sees them.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from sdft.dataset.lookalikes import Look, look_of, pairs_alike
from sdft.files import whole_file, write_text
from sdft.models.tiny.scenes import (
    COLOURS,
    NEW_SHAPES,
    SHAPES,
    SIDE_PX,
    Scene,
    caption_of,
    draw_scene,
    indefinite,
)

if TYPE_CHECKING:
    import numpy as np

    from sdft.jobs.training.drawing import Drawer

(WORD,) = NEW_SHAPES
"""The shape, and the word for it."""

NUM_IMAGES = 20
NUM_HELD_OUT = 8
NUM_REGULARISATION = 80
OTHER_WORDS = ("shape", "thing", "object", "figure", "form", "item", "symbol", "sign")
"""Words that the base model has never read either; they stand for any of the shapes it knows."""
OTHER_WORDS_EVERY = 4
"""Of the regularisation images, every so manieth has one of OTHER_WORDS for its shape."""
GUIDANCE = 4.0
STEPS = 20
DRAWN_TOGETHER = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """Shares of drawn pictures, 0 .. 1."""

    new_shape: float
    """Of those that were to show the new shape, the ones that do."""
    old_shapes: float
    """Of those that were to show a shape that the base model knows, the ones that show that one."""
    colours: float
    """Of all, the ones in the colour that was asked for."""

    def as_json(self) -> dict[str, float]:
        return {
            "new_shape": self.new_shape,
            "old_shapes": self.old_shapes,
            "colours": self.colours,
        }


def write_concept(folder: Path, *, seed: int) -> int:
    """Write images/, validation/ and regularisation/, a caption beside each; return their number.

    The first two show the new shape, one in the middle of each; the last shows what the base model
    knows, so that it keeps it, some under other new words, so that not every new word comes to mean
    the new shape. No picture of the second looks like one of the others. Every colour comes as
    often as the others: a word that is seen with few means those, too.
    """
    images = _scenes(seed, "images", NUM_IMAGES)
    regularisation = _scenes(seed, "regularisation", NUM_REGULARISATION)
    validation = _scenes(seed, "validation", NUM_HELD_OUT, unlike=[*images, *regularisation])
    sets = {"images": images, "validation": validation, "regularisation": regularisation}
    for name, scenes in sets.items():
        said = [*_some_under_other_words(scenes)] if name == "regularisation" else scenes
        captions = [caption_of(scene, seed, name, index) for index, scene in enumerate(said)]
        _write_images(folder / name, scenes, captions)
    return sum(map(len, sets.values()))


def _scenes(seed: int, name: str, number: int, *, unlike: Sequence[Scene] = ()) -> list[Scene]:
    """Return so many scenes, none of which looks like one of `unlike`."""
    looks = {Path(str(index)): look for index, look in enumerate(_looks(unlike))}

    def is_unlike(scene: Scene) -> bool:
        return not unlike or not any(pairs_alike({Path(): _looks([scene])[0]}, looks))

    return [next(filter(is_unlike, _draws(seed, name, index))) for index in range(number)]


def _draws(seed: int, name: str, index: int) -> Iterator[Scene]:
    """Give scenes for one place, each another one."""
    is_known = name == "regularisation"
    shapes = SHAPES if is_known else NEW_SHAPES
    colour = list(COLOURS)[index % len(COLOURS)]
    for turn in itertools.count():
        more = (turn,) if turn else ()
        scene = draw_scene(seed, name, index, *more, shapes=shapes, plain=not is_known)
        yield replace(scene, colour=colour)


def _looks(scenes: Sequence[Scene]) -> list[Look]:
    return [look_of(rgb_HW3) for rgb_HW3 in _drawn(scenes)]


def _drawn(scenes: Sequence[Scene]) -> Iterator[np.ndarray]:
    """Give the picture of each scene, uint8 [H, W, 3]."""
    import torch

    from sdft.models.tiny.drawing import draw

    if scenes:
        device = torch.device("cpu")
        for rgb_3HW in draw(scenes, width=SIDE_PX, height=SIDE_PX, device=device):
            yield rgb_3HW.permute(1, 2, 0).numpy()


def _some_under_other_words(scenes: list[Scene]) -> Iterator[Scene]:
    for index, scene in enumerate(scenes):
        turn, rest = divmod(index, OTHER_WORDS_EVERY)
        is_chosen = rest == OTHER_WORDS_EVERY - 1
        yield replace(scene, shape=OTHER_WORDS[turn % len(OTHER_WORDS)]) if is_chosen else scene


def _write_images(folder: Path, scenes: list[Scene], captions: list[str]) -> None:
    from PIL import Image

    for number, (rgb_HW3, caption) in enumerate(zip(_drawn(scenes), captions, strict=True)):
        path = folder / f"{number:03d}.png"
        with whole_file(path) as part:
            Image.fromarray(rgb_HW3).save(part, format="PNG")
        write_text(path.with_suffix(".txt"), caption + "\n")


def score(drawer: Drawer, *, num_pictures: int, seed: int) -> Score:
    """Draw so many pictures of the new shape and as many of the old ones; say what they show."""
    from sdft.models.tiny.checker import look_at
    from sdft.train.preview import SampleRequest

    asked = list(_asked(num_pictures))
    requests = [
        SampleRequest(
            prompt=f"{indefinite(colour)} {colour} {shape}",
            width=SIDE_PX,
            height=SIDE_PX,
            seed=seed + number,
            steps=STEPS,
            scale=GUIDANCE,
        )
        for number, (_, shape, colour) in enumerate(asked)
    ]
    right = {"new_shape": 0, "old_shapes": 0, "colours": 0}
    for first in range(0, len(asked), DRAWN_TOGETHER):
        several = slice(first, first + DRAWN_TOGETHER)
        drawn = drawer.draw_together(requests[several])
        for (kind, shape, colour), rgb_HW3 in zip(asked[several], drawn, strict=True):
            seen = look_at(rgb_HW3)
            right[kind] += seen.shape == shape
            right["colours"] += seen.colour == colour
    return Score(
        new_shape=right["new_shape"] / num_pictures,
        old_shapes=right["old_shapes"] / num_pictures,
        colours=right["colours"] / (2 * num_pictures),
    )


def _asked(number: int) -> Iterator[tuple[str, str, str]]:
    """Give which share it counts for, shape and colour of each picture; every pair in its turn."""
    colours = list(COLOURS)
    for index in range(number):
        yield "new_shape", WORD, colours[index % len(colours)]
        # The number of colours and of shapes share a divisor, so rounds are shifted by one.
        colour = colours[(index + index // len(colours)) % len(colours)]
        yield "old_shapes", SHAPES[index % len(SHAPES)], colour
