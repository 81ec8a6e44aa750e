"""The masks of a plan, made once and kept at the size of latents.

In: placements and where each one's mask comes from. Out: keys of [h, w] arrays in a store. A mask
goes through the geometry of its picture, so the two always fit; a mirrored picture mirrors its
mask when it is used. No torch here.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sdft.cache.digests import FileDigests, FileVersion, ReadFile, read_with_digest
from sdft.cache.keys import digest_of
from sdft.cache.pipeline import num_cores, work_ahead
from sdft.cache.shard import StoredDtype
from sdft.cache.store import TensorStore
from sdft.cache.writer import StoreWriter
from sdft.cache.writing import writer_of
from sdft.dataset.masks import MaskKind, decode_mask, fit_mask, shape_problem
from sdft.dataset.pixels import PREPROCESSING_VERSION
from sdft.dataset.records import Placement
from sdft.errors import DataError, Problem
from sdft.events import Emit, Notice, StageFinished, StageStarted, ignore

STAGE = "masks"

DTYPE: StoredDtype = "fp16"
"""A cell is a mean of 64 values of 8 bits: half precision is off by 1 in 2,000 at most."""

AHEAD_PER_THREAD = 4

PROBLEMS_SHOWN = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskSource:
    """The file that a placement's mask is in."""

    path: Path
    kind: MaskKind


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskCacheResult:
    """What a pass did."""

    keys: tuple[str | None, ...]
    """One for each placement, in order; none where it has no mask."""
    made: int
    reused: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Made:
    number: int
    key: str = ""
    file: ReadFile | None = None
    mask_hw: np.ndarray | None = None
    """None where the store has it already."""
    problem: str = ""


def cache_masks(
    placements: Sequence[Placement],
    sources: Sequence[MaskSource | None],
    *,
    store: TensorStore,
    digests: FileDigests,
    emit: Emit = ignore,
    max_workers: int | None = None,
) -> MaskCacheResult:
    """Make the masks that the store lacks and return where all lie.

    Raises: DataError naming masks that cannot be used: without its mask a picture would teach
        what it was not meant to; UserError (another process writes the cache), EnvironmentFault
        (disk full or not writable).
    """
    keys = _known_keys(placements, sources, digests)
    known = sorted({key for key in keys if key is not None})
    held = {key for key, is_held in zip(known, store.has(known), strict=True) if is_held}
    missing = [
        number
        for number, source in enumerate(sources)
        if source is not None and keys[number] not in held
    ]
    if missing:
        with writer_of(store, emit=emit) as writer:
            _make(missing, keys, placements, sources, store, digests, writer, emit, max_workers)
    num_masks = sum(source is not None for source in sources)
    return MaskCacheResult(keys=tuple(keys), made=len(missing), reused=num_masks - len(missing))


def _known_keys(
    placements: Sequence[Placement],
    sources: Sequence[MaskSource | None],
    digests: FileDigests,
) -> list[str | None]:
    """Return the keys of masks whose files were read before and have not changed."""
    keys: list[str | None] = [None] * len(placements)
    for number, source in enumerate(sources):
        if source is None:
            continue
        try:
            (digest,) = digests.remembered([FileVersion.of(source.path)])
        except OSError:
            # Reading it will fail too, and say why.
            continue
        if digest is not None:
            keys[number] = _key(placements[number], source, digest)
    return keys


def _make(
    missing: Sequence[int],
    keys: list[str | None],
    placements: Sequence[Placement],
    sources: Sequence[MaskSource | None],
    store: TensorStore,
    digests: FileDigests,
    writer: StoreWriter,
    emit: Emit,
    max_workers: int | None,
) -> None:
    started_s = time.monotonic()
    emit(StageStarted(stage=STAGE, total=len(missing), unit="mask"))

    def prepare(number: int) -> _Made:
        source = sources[number]
        assert source is not None
        return _prepared(number, placements[number], source, store)

    num_threads = max_workers or num_cores()
    problems: list[Problem] = []
    taken: set[str] = set()
    ahead = num_threads * AHEAD_PER_THREAD
    for made in work_ahead(prepare, missing, num_threads=num_threads, ahead=ahead):
        source = sources[made.number]
        assert source is not None
        if made.problem:
            problems.append(Problem(made.problem, where=str(source.path)))
            continue
        assert made.file is not None
        digests.remember(made.file.known)
        keys[made.number] = made.key
        if made.mask_hw is not None and made.key not in taken:
            taken.add(made.key)
            writer.add(made.key, made.mask_hw, DTYPE)
            if not made.mask_hw.any():
                message = f"nothing is learnt from {placements[made.number].item.path}"
                emit(Notice(severity="warning", topic="mask", message=f"an empty mask: {message}"))
    if problems:
        summary = Problem(f"{len(problems)} of {len(missing)} masks cannot be used")
        raise DataError(problems=[*problems[:PROBLEMS_SHOWN], summary])
    duration_s = time.monotonic() - started_s
    emit(StageFinished(stage=STAGE, done=len(missing), duration_s=duration_s))


def _prepared(number: int, placement: Placement, source: MaskSource, store: TensorStore) -> _Made:
    """Read one file and make its mask; runs in a thread and changes nothing outside."""
    try:
        file = read_with_digest(source.path)
        key = _key(placement, source, file.known.digest)
        if store.has([key])[0]:
            return _Made(number=number, key=key, file=file)
        mask_HW = decode_mask(file.content, source.kind)
    except OSError as error:
        return _Made(number=number, problem=f"cannot be read: {error.strerror or error}")
    except DataError as error:
        return _Made(number=number, problem="; ".join(one.what for one in error.problems))
    problem = shape_problem(mask_HW, placement.item.size)
    if problem:
        return _Made(number=number, problem=problem)
    mask_hw = fit_mask(mask_HW, placement.resized, placement.crop)
    return _Made(number=number, key=key, file=file, mask_hw=mask_hw)


def _key(placement: Placement, source: MaskSource, digest: str) -> str:
    return digest_of(
        "mask",
        PREPROCESSING_VERSION,
        source.kind,
        digest,
        placement.resized,
        placement.crop,
    )
