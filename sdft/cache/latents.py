"""Encodes every picture of a plan once.

In: a BucketPlan, a recipe, a store, an encoder that is loaded only where it is needed. Out: the
keys of each placement's latents, and what could not be used.

A file is read once: its digest and its pixels come from the same bytes, so a key always fits its
pixels. Threads read and decode ahead of the VAE; a cache filled in several goes equals one filled
in one (see encode_pictures). No torch here.
"""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Protocol

import numpy as np

from sdft.cache.digests import FileDigests
from sdft.cache.keys import LATENT_CHANNELS, PIXELS_PER_CELL, LatentRecipe
from sdft.cache.pipeline import Picture, encode_pictures, num_cores, work_ahead
from sdft.cache.posterior import fits, values_of
from sdft.cache.prepare import (
    LatentKeys,
    LatentRules,
    Prepared,
    Preparer,
    rules_of,
)
from sdft.cache.shard import BYTES_OF
from sdft.cache.store import TensorStore
from sdft.cache.writer import StoreWriter
from sdft.collector import no_collections
from sdft.dataset.records import BucketPlan, Item, Placement, Rejected
from sdft.errors import DataError, Problem
from sdft.events import (
    Emit,
    ItemRejected,
    Notice,
    StageFinished,
    StageProgress,
    StageStarted,
    ignore,
)
from sdft.files import require_space

__all__ = [
    "LatentCacheResult",
    "LatentKeys",
    "LatentRules",
    "MomentsEncoder",
    "cache_latents",
    "foreseen_bytes",
]

STAGE = "latents"

AHEAD_PER_THREAD = 4
"""Pictures begun for each thread: one slow picture then does not hold up the other threads."""

PROGRESS_EVERY_S = 0.2

PROBLEMS_SHOWN = 10


class MomentsEncoder(Protocol):
    """A VAE's encoder as the pass sees it. Shapes: B pictures, H W pixels, h w latent cells."""

    def submit(self, rgb_BHWC: np.ndarray) -> Callable[[], np.ndarray]:
        """Begin to encode uint8; the result gives [B, 2 * 4, h, w] float32: mean, log-variance."""

    def explain_not_finite(self) -> tuple[str, str]:
        """Return why a latent may be NaN or infinite, and the fix."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LatentCacheResult:
    """What a pass did: images == encoded + reused + len(rejected)."""

    images: int
    encoded: int
    """Images for which the VAE ran."""
    reused: int
    rejected: tuple[Rejected, ...]
    keys: tuple[LatentKeys, ...]
    """One for each placement of the plan, in its order."""
    cache: Path


def cache_latents(
    plan: BucketPlan,
    *,
    store: TensorStore,
    digests: FileDigests,
    recipe: LatentRecipe,
    rules: Mapping[tuple[int, int], LatentRules],
    load_encoder: Callable[[], MomentsEncoder],
    vae_batch_size: int = 1,
    emit: Emit = ignore,
    max_workers: int | None = None,
    max_rejected: int | None = None,
    takes_npz: bool = False,
) -> LatentCacheResult:
    """Encode what the store lacks and return where everything lies.

    `rules` are by (dataset, subset); a subset that is not named has the default rules.
    `load_encoder` is called only where something is missing. More than `max_rejected` unusable
    images stop the pass; None lets any number pass. With `takes_npz` the latents that sd-scripts
    left beside a picture are taken over where they fit; they are single draws, so only the kind
    `sample` can.

    Raises: DataError (latents not finite, too many unusable images), UserError (another process
    writes the cache), EnvironmentFault (disk full or not writable).
    """
    preparer = Preparer(
        placements=plan.placements,
        store=store,
        recipe=recipe,
        rules=rules,
        takes_npz=takes_npz and recipe.kind == "sample",
    )
    run = _Pass(preparer, digests=digests, emit=emit, max_rejected=max_rejected)
    with no_collections():
        jobs = run.find_missing()
    if jobs or store.unconfirmed:
        with StoreWriter(store, emit=emit) as writer:
            run.encode(jobs, writer, load_encoder, vae_batch_size, max_workers or num_cores())
    return run.result()


def foreseen_bytes(
    placements: Sequence[Placement],
    recipe: LatentRecipe,
    rules: Mapping[tuple[int, int], LatentRules],
) -> int:
    """Return the size of placements' latents on the disk when all of them are encoded."""
    channels = LATENT_CHANNELS * (2 if recipe.kind == "moments" else 1)
    num_cells = sum(
        placement.bucket[0] * placement.bucket[1] * (2 if rules_of(placement, rules).flip else 1)
        for placement in placements
    ) // (PIXELS_PER_CELL * PIXELS_PER_CELL)
    return num_cells * channels * BYTES_OF[recipe.dtype]


class _Pass:
    """One run of `cache_latents`: what is known of each placement so far."""

    def __init__(
        self,
        preparer: Preparer,
        *,
        digests: FileDigests,
        emit: Emit,
        max_rejected: int | None,
    ) -> None:
        self._preparer = preparer
        self._placements = preparer.placements
        self._store = preparer.store
        self._recipe = preparer.recipe
        self._digests = digests
        self._emit = emit
        self._max_rejected = max_rejected
        self._keys: list[LatentKeys] = []
        self._rejected: list[Rejected] = []
        self._encoded: set[int] = set()

    def result(self) -> LatentCacheResult:
        num_images = len(self._placements)
        return LatentCacheResult(
            images=num_images,
            encoded=len(self._encoded),
            reused=num_images - len(self._encoded) - len(self._rejected),
            rejected=tuple(self._rejected),
            keys=tuple(self._keys),
            cache=self._store.folder,
        )

    def find_missing(self) -> list[int]:
        """Return the numbers of the placements whose files have to be read, size by size."""
        self._keys = self._preparer.known_keys(self._digests)
        present = [keys.present for keys in self._keys]
        held = iter(self._store.has([key for keys in present for key in keys]).tolist())
        missing = [
            number
            for number, keys in enumerate(present)
            # A placement whose file was never read has no keys.
            if not keys or not all(list(islice(held, len(keys))))
        ]
        return sorted(missing, key=lambda number: (self._placements[number].bucket, number))

    def encode(
        self,
        jobs: Sequence[int],
        writer: StoreWriter,
        load_encoder: Callable[[], MomentsEncoder],
        vae_batch_size: int,
        num_threads: int,
    ) -> None:
        """Read, decode, encode and store; what cannot be used is noted."""
        if not jobs:
            return
        placements = [self._placements[number] for number in jobs]
        num_bytes = foreseen_bytes(placements, self._recipe, self._preparer.rules)
        require_space(self._store.folder, num_bytes, "the cache of latents")
        started_s = time.monotonic()
        self._emit(StageStarted(stage=STAGE, total=len(jobs), unit="image"))
        encoder = functools.cache(load_encoder)
        ahead = num_threads * AHEAD_PER_THREAD + vae_batch_size
        # Closed at once, so that after an error no thread goes on to decode what nobody wants.
        with contextlib.closing(
            work_ahead(self._preparer.prepare, jobs, num_threads=num_threads, ahead=ahead)
        ) as prepared:
            for picture, moments_Chw in encode_pictures(
                self._pictures(prepared, writer),
                lambda rgb_BHWC: encoder().submit(rgb_BHWC),
                batch_size=vae_batch_size,
            ):
                values = values_of(moments_Chw, self._recipe.kind, picture.key)
                if not fits(values, self._recipe.dtype):
                    cause, fix = encoder().explain_not_finite()
                    raise DataError(f"its latents are not finite: {cause}", str(picture.path), fix)
                writer.add(picture.key, values, self._recipe.dtype)
                self._encoded.add(picture.number)
        duration_s = time.monotonic() - started_s
        self._emit(StageFinished(stage=STAGE, done=len(jobs), duration_s=duration_s))

    def _pictures(self, prepared: Iterable[Prepared], writer: StoreWriter) -> Iterator[Picture]:
        """Note what the threads found, and pass on each picture that has to be encoded once."""
        taken: set[str] = set()
        shown_s = time.monotonic()
        for num_done, one in enumerate(prepared, start=1):
            self._note(one)
            for key, latents_Chw in one.old_latents:
                writer.add(key, latents_Chw, self._recipe.dtype)
            for picture in one.pictures:
                if picture.key not in taken:
                    taken.add(picture.key)
                    yield picture
            if time.monotonic() - shown_s >= PROGRESS_EVERY_S:
                shown_s = time.monotonic()
                self._emit(StageProgress(stage=STAGE, done=num_done))

    def _note(self, one: Prepared) -> None:
        self._keys[one.number] = one.keys
        for file in one.files:
            self._digests.remember(file)
        for note in one.notes:
            self._emit(Notice(severity="warning", topic=STAGE, message=note))
        if one.problem:
            self._reject(self._placements[one.number].item, one.problem)

    def _reject(self, item: Item, reason: str) -> None:
        self._rejected.append(
            Rejected(
                path=item.path,
                reason=reason,
                dataset=item.dataset,
                subset=item.subset,
                size=item.size,
            )
        )
        self._emit(ItemRejected(path=str(item.path), reason=reason))
        if self._max_rejected is not None and len(self._rejected) > self._max_rejected:
            too_many = Problem(
                what=f"{len(self._rejected)} images cannot be used; "
                f"the limit is {self._max_rejected}",
                fix="mend or remove them, or raise the limit",
            )
            shown = self._rejected[:PROBLEMS_SHOWN]
            raise DataError(
                problems=[too_many, *(Problem(one.reason, str(one.path)) for one in shown)]
            )
