"""Encodes every picture of a plan once.

In: a BucketPlan, a recipe, a store, an encoder that is loaded only where it is needed. Out: the
keys of each placement's latents, and what could not be used.

A file is read once: its digest and its pixels come from the same bytes, so a key always fits its
pixels. Threads read and decode ahead of the VAE; a cache filled in several goes equals one filled
in one (see encode_pictures). No torch here.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sdft.cache.digests import FileDigests
from sdft.cache.keys import LATENT_CHANNELS, PIXELS_PER_CELL, LatentRecipe
from sdft.cache.latent_keys import KeyTable, LatentKeys
from sdft.cache.latent_work import STAGE, LatentWork, MomentsEncoder
from sdft.cache.pipeline import num_cores
from sdft.cache.prepare import (
    LatentRules,
    Prepared,
    Preparer,
    rules_of,
)
from sdft.cache.shard import BYTES_OF
from sdft.cache.sharing import ONLY_ONE, Crew, WrittenShard, shares
from sdft.cache.store import TensorStore
from sdft.cache.writer import StoreWriter
from sdft.cache.writing import helping_writer, writer_of
from sdft.collector import no_collections
from sdft.dataset.records import BucketPlan, Item, Placement, Rejected
from sdft.dataset.tables import PlacementTable
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
    "KeyTable",
    "LatentCacheResult",
    "LatentKeys",
    "LatentRules",
    "MomentsEncoder",
    "cache_latents",
    "foreseen_bytes",
]

PROBLEMS_SHOWN = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class LatentCacheResult:
    """What a pass did: images == encoded + reused + len(rejected)."""

    images: int
    encoded: int
    """Images for which the VAE ran."""
    reused: int
    rejected: tuple[Rejected, ...]
    keys: KeyTable
    """One for each placement of the plan, in its order."""
    cache: Path


def cache_latents(
    plan: BucketPlan,
    *,
    store: TensorStore,
    digests: FileDigests | None,
    recipe: LatentRecipe,
    rules: Mapping[tuple[int, int], LatentRules],
    load_encoder: Callable[[], MomentsEncoder],
    vae_batch_size: int = 1,
    emit: Emit = ignore,
    max_workers: int | None = None,
    max_rejected: int | None = None,
    takes_npz: bool = False,
    crew: Crew = ONLY_ONE,
) -> LatentCacheResult:
    """Encode what the store lacks and return where everything lies.

    With a `crew` all of its processes call this and get the same result. The first one finds what
    is missing and says all; each encodes its share. `digests` are its alone: none in the others.

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
    num_threads = max_workers or max(1, num_cores() // crew.size)
    if crew.rank > 0:
        result = _help(preparer, crew, load_encoder, vae_batch_size, num_threads)
        store.refresh()
        return result
    assert digests is not None, "the first process knows what was read before"
    run = _Pass(preparer, digests=digests, emit=emit, max_rejected=max_rejected)
    with no_collections():
        jobs = run.find_missing()
    if not jobs and not store.unconfirmed:
        crew.from_main(lambda: [[]] * crew.size)
    else:
        with writer_of(store, emit=emit) as writer:
            # Not before: the writer clears away what a process that died left in the folder.
            parts = crew.from_main(lambda: shares(jobs, preparer.placements, crew.size))
            run.encode(jobs, parts[0], writer, load_encoder, vae_batch_size, num_threads, crew)
    return crew.from_main(run.result)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """What another process than the first has done."""

    prepared: tuple[Prepared, ...]
    encoded: frozenset[int]
    shards: tuple[WrittenShard, ...]


def _help(
    preparer: Preparer,
    crew: Crew,
    load_encoder: Callable[[], MomentsEncoder],
    vae_batch_size: int,
    num_threads: int,
) -> LatentCacheResult:
    """Encode this process' share for the one that holds the store; return its result."""
    parts: list[list[int]] = crew.from_main(_not_here)
    if any(parts):
        writer = helping_writer(preparer.store)
        work = LatentWork(preparer, writer.add, told=crew)
        try:
            work.encode(parts[crew.rank], load_encoder, vae_batch_size, num_threads)
        finally:
            # What is finished is worth keeping: the next writer finds it.
            writer.flush()
        crew.to_main(
            _Found(
                prepared=tuple(work.prepared),
                encoded=frozenset(work.encoded),
                shards=tuple(writer.written),
            )
        )
    result: LatentCacheResult = crew.from_main(_not_here)
    return result


def _not_here() -> Any:
    raise AssertionError("only the first process makes it")


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
        self._keys = KeyTable.empty(0)
        self._rejected: list[Rejected] = []
        self._encoded: set[int] = set()

    def result(self) -> LatentCacheResult:
        num_images = len(self._placements)
        return LatentCacheResult(
            images=num_images,
            encoded=len(self._encoded),
            reused=num_images - len(self._encoded) - len(self._rejected),
            rejected=tuple(self._rejected),
            keys=self._keys,
            cache=self._store.place,
        )

    def find_missing(self) -> list[int]:
        """Return the numbers of the placements whose files have to be read, size by size."""
        self._keys = self._preparer.known_keys(self._digests)
        plain, flipped = self._keys.plain, self._keys.flipped
        # A placement whose file was never read has no keys.
        complete_N = plain.present_N & self._store.holds(plain.keys_N16)
        if flipped.present_N.any():
            complete_N &= ~flipped.present_N | self._store.holds(flipped.keys_N16)
        missing = np.flatnonzero(~complete_N)
        # The last key sorts first.
        widths, heights = PlacementTable.of(self._placements).buckets_N2[missing].T
        ordered: list[int] = missing[np.lexsort((missing, heights, widths))].tolist()
        return ordered

    def encode(
        self,
        jobs: Sequence[int],
        own: Sequence[int],
        writer: StoreWriter,
        load_encoder: Callable[[], MomentsEncoder],
        vae_batch_size: int,
        num_threads: int,
        crew: Crew,
    ) -> None:
        """Do this process' `own` part of the jobs and take in what the others did."""
        if not jobs:
            return
        placements = [self._placements[number] for number in jobs]
        num_bytes = foreseen_bytes(placements, self._recipe, self._preparer.rules)
        require_space(
            self._store.folder, self._store.local_bytes(num_bytes), "the cache of latents"
        )
        started_s = time.monotonic()
        self._emit(StageStarted(stage=STAGE, total=len(jobs), unit="image"))

        def show(num_done: int) -> None:
            done = num_done + crew.count(STAGE, 0)
            self._emit(StageProgress(stage=STAGE, done=min(done, len(jobs))))

        work = LatentWork(self._preparer, writer.add, note=self._note, show=show)
        work.encode(own, load_encoder, vae_batch_size, num_threads)
        self._encoded |= work.encoded
        found: list[_Found | None] = crew.to_main(None)
        for one in found:
            if one is not None:
                writer.take_in(one.shards)
                self._encoded |= one.encoded
                for prepared in one.prepared:
                    self._note(prepared)
        duration_s = time.monotonic() - started_s
        self._emit(StageFinished(stage=STAGE, done=len(jobs), duration_s=duration_s))

    def _note(self, one: Prepared) -> None:
        self._keys.put(one.number, one.keys)
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
