"""What every tagger and captioner is to the runner."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

Words = tuple[str, ...]
"""What a model says of one image: its tags, or one caption."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """One image, ready for the model."""

    key: str
    """Names the image wherever it lies: random choices depend on it and on the seed only."""
    pixels: npt.NDArray[np.uint8]
    """[H, W, 3], RGB."""


class Labeler(Protocol):
    """One loaded model."""

    @property
    def title(self) -> str:
        """Model and device, for one line of the log."""

    @property
    def fixed_batch(self) -> int | None:
        """How many images the model takes at once, no more and no less; None for any number."""

    @property
    def first_batch(self) -> int:
        """How many images to try at once where nobody said a number."""

    def prepare(self, rgb_HWC: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """Bring a picture to the model's size. Called by many threads at once."""

    def label(self, batch: Sequence[Prepared]) -> list[Words]:
        """Return what the model says of each image; what it says of one depends on no other."""
