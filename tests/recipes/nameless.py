"""Things that have no name, so that the tiny model does not take a new word for one it knows.

A model that has only ever read six names for shapes reads every other word as one of them, and to
teach it the word spoils that one. So some of its pictures show an outline of no particular kind,
and the word for it is another each time: any but those that captions are made of.

B batch, S tokens, V vocabulary.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from sdft.formats.clip_tokens import BOS_ID, EOS_ID, VOCABULARY_SIZE, ClipTokenizer
from sdft.models.tiny.drawing import Distance
from sdft.models.tiny.scenes import NEW_SHAPES, SHAPES, Scene, caption_of, draw_scene, plural

NUM_OUTLINES = 400
SHARE = 0.15
"""Of the pictures of shapes; so many nameless ones come to them."""
WORD = "thing"
"""Stands in captions where another word is put each time."""


def lobed(u: Tensor, v: Tensor, *, lobes: tuple[int, int], depth: float, turn: float) -> Tensor:
    """Return the distance to an outline that goes in and out as often as the sum of two waves.

    Along a ray from the middle, that is: nearer to it than the true one where the outline slants.
    """
    angle = torch.atan2(v, u) + turn
    first, second = lobes
    wave = (first * angle).cos() + 0.5 * (second * angle + turn).cos()
    return (u**2 + v**2).sqrt() - (1 + depth * wave) / (1 + 1.5 * depth)


def outlines(seed: int) -> dict[str, Distance]:
    """Return what `draw` takes as `distances`, each by a name that is in no caption.

    Every ray from the middle meets them once, so none of them is an eclipse or a ring.
    """
    draws = random.Random(f"outlines/{seed}")
    return {
        f"outline {number}": partial(
            lobed,
            lobes=(draws.randint(2, 7), draws.randint(1, 7)),
            depth=draws.uniform(0.1, 0.35),
            turn=draws.uniform(0, 2 * torch.pi),
        )
        for number in range(NUM_OUTLINES)
    }


def nameless_scenes(number: int, seed: int) -> tuple[list[Scene], list[str]]:
    """Return scenes and captions; the shapes are named as in `outlines`."""
    names = list(outlines(seed))
    scenes = [draw_scene("nameless", seed, index, shapes=names) for index in range(number)]
    captions = [
        caption_of(replace(scene, shape=WORD), "nameless", seed, index)
        for index, scene in enumerate(scenes)
    ]
    return scenes, captions


class OtherWords:
    """Puts any word in the place of WORD."""

    def __init__(self, captions: set[str], device: torch.device) -> None:
        tokenizer = ClipTokenizer("eos")
        new = [word for shape in NEW_SHAPES for word in (shape, plural(shape))]
        spoken = {token for text in {*captions, *new} for token in tokenizer.encode(text)}
        stand_ins = [token for word in (WORD, plural(WORD)) for token in tokenizer.encode(word)]
        known = {BOS_ID, EOS_ID, *spoken} - set(stand_ins)
        self.is_known_V1 = torch.zeros(VOCABULARY_SIZE, 1, device=device)
        self.is_known_V1[sorted(known)] = 1
        others = [token for token in range(VOCABULARY_SIZE) if token not in known]
        self._others = torch.tensor(others, device=device)
        self._one, self._several = stand_ins
        # Of several things too: some of the plurals are more than one token.
        self._shapes = [tokenizer.encode(shape)[0] for shape in SHAPES]

    def known_for(self, ids_BS: Tensor) -> Iterator[Tensor]:
        """Give ids with each of the shapes in the place of WORD."""
        is_stand_in_BS = self._is_stand_in(ids_BS)
        for shape in self._shapes:
            yield torch.where(is_stand_in_BS, shape, ids_BS)

    def put_into(self, ids_BS: Tensor) -> Tensor:
        """Return ids with another word in each caption that has WORD in it."""
        chosen_B1 = torch.randint(0, len(self._others), (len(ids_BS), 1), device=ids_BS.device)
        return torch.where(self._is_stand_in(ids_BS), self._others[chosen_B1], ids_BS)

    def _is_stand_in(self, ids_BS: Tensor) -> Tensor:
        return (ids_BS == self._one) | (ids_BS == self._several)
