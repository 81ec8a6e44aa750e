"""What one process does of a pass over pictures: read, decode, encode, hand over for storing.

In: numbers of placements. Out: latents by key, and what was found out about each placement.
Threads read and decode ahead of the VAE.
"""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np

from sdft.cache.pipeline import Picture, encode_pictures, work_ahead
from sdft.cache.posterior import fits, values_of
from sdft.cache.prepare import Prepared, Preparer
from sdft.cache.shard import StoredDtype
from sdft.cache.sharing import ONLY_ONE, Crew
from sdft.errors import DataError

STAGE = "latents"

AHEAD_PER_THREAD = 4
"""Pictures begun for each thread: one slow picture then does not hold up the other threads."""

PROGRESS_EVERY_S = 0.2


class MomentsEncoder(Protocol):
    """A VAE's encoder as the pass sees it. Shapes: B pictures, H W pixels, h w latent cells."""

    def submit(self, rgb_BHWC: np.ndarray) -> Callable[[], np.ndarray]:
        """Begin to encode uint8; the result gives [B, 2 * 4, h, w] float32: mean, log-variance."""

    def explain_not_finite(self) -> tuple[str, str]:
        """Return why a latent may be NaN or infinite, and the fix."""


class LatentWork:
    """One process' share of a pass."""

    def __init__(
        self,
        preparer: Preparer,
        add: Callable[[str, np.ndarray, StoredDtype], None],
        *,
        note: Callable[[Prepared], None] | None = None,
        show: Callable[[int], None] | None = None,
        told: Crew = ONLY_ONE,
    ) -> None:
        """`note` hears of each file, and `show` how many are done; without them what was found
        is kept in `prepared`, and counted where the crew sees it."""
        self._preparer = preparer
        self._dtype = preparer.recipe.dtype
        self._add = add
        self._note_now = note
        self._show = show
        self._told = told
        self._num_told = 0
        self.prepared: list[Prepared] = []
        self.encoded: set[int] = set()

    def encode(
        self,
        jobs: Sequence[int],
        load_encoder: Callable[[], MomentsEncoder],
        vae_batch_size: int,
        num_threads: int,
    ) -> None:
        """Do these jobs.

        Raises: DataError where latents are not finite.
        """
        encoder = functools.cache(load_encoder)
        kind = self._preparer.recipe.kind
        ahead = num_threads * AHEAD_PER_THREAD + vae_batch_size
        # Closed at once, so that after an error no thread goes on to decode what nobody wants.
        with contextlib.closing(
            work_ahead(self._preparer.prepare, jobs, num_threads=num_threads, ahead=ahead)
        ) as prepared:
            for picture, moments_Chw in encode_pictures(
                self._pictures(prepared),
                lambda rgb_BHWC: encoder().submit(rgb_BHWC),
                batch_size=vae_batch_size,
            ):
                values = values_of(moments_Chw, kind, picture.key)
                if not fits(values, self._dtype):
                    cause, fix = encoder().explain_not_finite()
                    raise DataError(f"its latents are not finite: {cause}", str(picture.path), fix)
                self._add(picture.key, values, self._dtype)
                self.encoded.add(picture.number)

    def _pictures(self, prepared: Iterable[Prepared]) -> Iterator[Picture]:
        """Note what the threads found, and pass on each picture that has to be encoded once."""
        taken: set[str] = set()
        shown_s = time.monotonic()
        for num_done, one in enumerate(prepared, start=1):
            self._note(one)
            for key, latents_Chw in one.old_latents:
                self._add(key, latents_Chw, self._dtype)
            for picture in one.pictures:
                if picture.key not in taken:
                    taken.add(picture.key)
                    yield picture
            if time.monotonic() - shown_s >= PROGRESS_EVERY_S:
                shown_s = time.monotonic()
                self._tell(num_done)

    def _note(self, one: Prepared) -> None:
        if self._note_now is not None:
            self._note_now(one)
        else:
            self.prepared.append(replace(one, pictures=(), old_latents=()))

    def _tell(self, num_done: int) -> None:
        if self._show is not None:
            self._show(num_done)
        else:
            self._told.count(STAGE, num_done - self._num_told)
            self._num_told = num_done
