"""Contexts that are kept instead of made anew in each step.

In: the words of a micro-batch. Out: their contexts, where all of them are kept.
B batch, S tokens, D text width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Contexts:
    """Reads kept contexts, to the bit what the text encoder gave."""

    read: Callable[[str], np.ndarray]
    """Returns [S, D] for a key."""
    fetch: Callable[[Sequence[str]], None]
    """Hears which keys will be read next."""
    keys: Mapping[str, str]
    """Where each text's context lies."""
    dtype: torch.dtype
    """What the text encoder gives; the store holds every value of it."""

    def of(self, texts: Sequence[str]) -> Tensor | None:
        """Return [B, S, D], or None where a text's context is not kept: then all are made anew."""
        keys = [self.keys.get(text) for text in texts]
        self.fetch([key for key in keys if key is not None])
        found = [self.read(key) for key in keys if key is not None]
        if len(found) < len(texts):
            return None
        return torch.from_numpy(np.stack(found)).to(self.dtype)
