"""Encodes every picture of a plan once.

In: a BucketPlan, a recipe, a store, an encoder that is loaded only where it is needed. Out: the
keys of each placement's latents, and what could not be used.

A file is read once: its digest and its pixels come from the same bytes, so a key always fits its
pixels. Threads read and decode ahead of the VAE; a cache filled in several goes equals one filled
in one (see encode_pictures). No torch here.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from sdft.cache.digests import FileDigests, FileVersion, ReadFile, read_with_digest
from sdft.cache.keys import LatentRecipe
from sdft.cache.pipeline import Picture, encode_pictures, num_cores, work_ahead
from sdft.cache.posterior import fits, values_of
from sdft.cache.store import TensorStore
from sdft.cache.writer import StoreWriter
from sdft.dataset.pixels import decode_rgb, fit
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

STAGE = "latents"

LATENT_CHANNELS = 4
PIXELS_PER_CELL = 8
"""As in sdft.models.vae, which cannot be imported without torch."""

BYTES_OF = {"fp16": 2, "bf16": 2, "fp32": 4}

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
class LatentRules:
    """What a subset asks of its latents."""

    flip: bool = False
    """The mirrored picture is encoded as well."""
    interpolation: str | None = None
    """A forced way of resizing; None takes area when shrinking, else Lanczos."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LatentKeys:
    """Where one placement's latents are stored; None where there are none."""

    plain: str | None = None
    flipped: str | None = None


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


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Prepared:
    """What a thread found out about one placement."""

    number: int
    file: ReadFile | None = None
    keys: LatentKeys = LatentKeys()
    pictures: tuple[Picture, ...] = ()
    """What is not in the store yet."""
    problem: str = ""


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
) -> LatentCacheResult:
    """Encode what the store lacks and return where everything lies.

    `rules` are by (dataset, subset); a subset that is not named has the default rules.
    `load_encoder` is called only where something is missing. More than `max_rejected` unusable
    images stop the pass; None lets any number pass.

    Raises: DataError (latents not finite, too many unusable images), UserError (another process
    writes the cache), EnvironmentFault (disk full or not writable).
    """
    run = _Pass(
        placements=plan.placements,
        store=store,
        digests=digests,
        recipe=recipe,
        rules=rules,
        emit=emit,
        max_rejected=max_rejected,
    )
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
        placement.bucket[0] * placement.bucket[1] * (2 if _rules(placement, rules).flip else 1)
        for placement in placements
    ) // (PIXELS_PER_CELL * PIXELS_PER_CELL)
    return num_cells * channels * BYTES_OF[recipe.dtype]


class _Pass:
    """One run of `cache_latents`: what is known of each placement so far."""

    def __init__(
        self,
        *,
        placements: Sequence[Placement],
        store: TensorStore,
        digests: FileDigests,
        recipe: LatentRecipe,
        rules: Mapping[tuple[int, int], LatentRules],
        emit: Emit,
        max_rejected: int | None,
    ) -> None:
        self._placements = placements
        self._store = store
        self._digests = digests
        self._recipe = recipe
        self._rules = rules
        self._emit = emit
        self._max_rejected = max_rejected
        self._keys = [LatentKeys()] * len(placements)
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
        known = self._digests.remembered(_version(one.item) for one in self._placements)
        for number, digest in enumerate(known):
            if digest is not None:
                self._keys[number] = self._keys_of(number, digest)
        wanted = {key for keys in self._keys for key in (keys.plain, keys.flipped) if key}
        absent = _absent(self._store, sorted(wanted))
        missing = [
            number
            for number, keys in enumerate(self._keys)
            if keys.plain is None or keys.plain in absent or keys.flipped in absent
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
        num_bytes = foreseen_bytes(placements, self._recipe, self._rules)
        require_space(self._store.folder, num_bytes, "the cache of latents")
        started_s = time.monotonic()
        self._emit(StageStarted(stage=STAGE, total=len(jobs), unit="image"))
        encoder = functools.cache(load_encoder)
        prepared = work_ahead(
            self._prepare,
            jobs,
            num_threads=num_threads,
            ahead=num_threads * AHEAD_PER_THREAD + vae_batch_size,
        )
        moments_of = encode_pictures(
            self._missing_pictures(prepared),
            lambda rgb_BHWC: encoder().submit(rgb_BHWC),
            batch_size=vae_batch_size,
        )
        for picture, moments_Chw in moments_of:
            values = values_of(moments_Chw, self._recipe.kind, picture.key)
            if not fits(values, self._recipe.dtype):
                cause, fix = encoder().explain_not_finite()
                raise DataError(
                    what=f"its latents are not finite: {cause}", where=str(picture.path), fix=fix
                )
            writer.add(picture.key, values, self._recipe.dtype)
            self._encoded.add(picture.number)
        duration_s = time.monotonic() - started_s
        self._emit(StageFinished(stage=STAGE, done=len(jobs), duration_s=duration_s))

    def _missing_pictures(self, prepared: Iterator[_Prepared]) -> Iterator[Picture]:
        taken: set[str] = set()
        shown_s = time.monotonic()
        for num_done, one in enumerate(prepared, start=1):
            if one.problem:
                self._reject(one.number, one.problem)
            self._keys[one.number] = one.keys
            if one.file is not None:
                self._digests.remember(one.file)
                self._tell_if_changed(self._placements[one.number].item, one.file)
            for picture in one.pictures:
                if picture.key not in taken:
                    taken.add(picture.key)
                    yield picture
            if time.monotonic() - shown_s >= PROGRESS_EVERY_S:
                shown_s = time.monotonic()
                self._emit(StageProgress(stage=STAGE, done=num_done))

    def _prepare(self, number: int) -> _Prepared:
        """Read and decode one file; runs in a thread and changes nothing outside."""
        placement = self._placements[number]
        try:
            file = read_with_digest(placement.item.path)
            keys = self._keys_of(number, file.digest)
            absent = _absent(self._store, [key for key in (keys.plain, keys.flipped) if key])
            pictures = self._decode(number, file, keys, absent) if absent else ()
        except FileNotFoundError:
            return _Prepared(number=number, problem="it vanished after it was indexed")
        except OSError as error:
            return _Prepared(number=number, problem=f"cannot be read: {error.strerror or error}")
        except DataError as error:
            reason = "; ".join(problem.what for problem in error.problems)
            return _Prepared(number=number, problem=reason)
        return _Prepared(number=number, file=file, keys=keys, pictures=pictures)

    def _decode(
        self, number: int, file: ReadFile, keys: LatentKeys, absent: set[str]
    ) -> tuple[Picture, ...]:
        placement = self._placements[number]
        rgb_HWC = decode_rgb(file.content)
        height, width = rgb_HWC.shape[:2]
        if (width, height) != placement.item.size:
            was_width, was_height = placement.item.size
            raise DataError(
                what=f"it was {was_width} x {was_height} px when it was indexed "
                f"and is {width} x {height} px now"
            )
        interpolation = _rules(placement, self._rules).interpolation
        fitted_HWC = fit(rgb_HWC, placement.resized, placement.crop, interpolation)
        path = placement.item.path
        pictures = []
        if keys.plain in absent:
            pictures.append(Picture(number=number, key=keys.plain, path=path, rgb_HWC=fitted_HWC))
        if keys.flipped in absent:
            mirrored_HWC = fitted_HWC[:, ::-1]
            pictures.append(
                Picture(number=number, key=keys.flipped, path=path, rgb_HWC=mirrored_HWC)
            )
        return tuple(pictures)

    def _keys_of(self, number: int, digest: str) -> LatentKeys:
        placement = self._placements[number]
        rules = _rules(placement, self._rules)
        plain, flipped = (
            self._recipe.key(
                image_digest=digest,
                resized=placement.resized,
                crop=placement.crop,
                flip=flip,
                interpolation=rules.interpolation,
            )
            if rules.flip or not flip
            else None
            for flip in (False, True)
        )
        return LatentKeys(plain=plain, flipped=flipped)

    def _reject(self, number: int, reason: str) -> None:
        item = self._placements[number].item
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
            raise DataError(
                problems=[
                    Problem(
                        what=f"{len(self._rejected)} images cannot be used; "
                        f"the limit is {self._max_rejected}",
                        fix="mend or remove them, or raise the limit",
                    ),
                    *(
                        Problem(what=rejected.reason, where=str(rejected.path))
                        for rejected in self._rejected[:PROBLEMS_SHOWN]
                    ),
                ]
            )

    def _tell_if_changed(self, item: Item, file: ReadFile) -> None:
        if file.version != _version(item):
            self._emit(
                Notice(
                    severity="warning",
                    topic="changed",
                    message=f"{item.path} changed after it was indexed; the new picture is used",
                )
            )


def _version(item: Item) -> FileVersion:
    return FileVersion(path=item.path, size_bytes=item.file_bytes, mtime_ns=item.mtime_ns)


def _rules(placement: Placement, rules: Mapping[tuple[int, int], LatentRules]) -> LatentRules:
    return rules.get((placement.item.dataset, placement.item.subset), LatentRules())


def _absent(store: TensorStore, keys: Sequence[str]) -> set[str]:
    held = store.has(keys)
    return {key for key, is_held in zip(keys, held, strict=True) if not is_held}
