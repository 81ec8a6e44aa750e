"""Makes the index of all images: what there is, how large, with which words.

In: the subsets of each dataset. Out: a DatasetIndex. Reads headers and caption files, decodes no
pixels; so a file whose pixels are broken is found later, when it is decoded.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np

from sdft.dataset.candidates import Candidates
from sdft.dataset.gathering import Gathered, examples, gather, plural, with_dot
from sdft.dataset.object_cache import ObjectCache
from sdft.dataset.reading import (
    Columns,
    PartRead,
    Reading,
    compared,
    read_part,
    read_rows,
)
from sdft.dataset.records import DatasetIndex, Rejected, SubsetSpec
from sdft.dataset.remembered import Forgetful, ImageMemory
from sdft.dataset.shard_gathering import ShardReader
from sdft.dataset.tables import ItemTable
from sdft.errors import DataError, Problem
from sdft.events import Emit, ItemRejected, StageFinished, StageProgress, StageStarted
from sdft.urls import as_path

STAGE = "index"

_IMAGES_AT_ONCE = 2000
"""One question to the memory, and to the disk for what is known."""

_OPENED_AT_ONCE = 250
"""One task of a thread; large enough that handing it over costs nothing."""

_AT_ONCE_S = 100e-6
"""A file system in memory tells a file's time and caption's in about 10 us, a network in 1 ms."""

_REASONS_SHOWN = 10


def build_index(
    datasets: Sequence[Sequence[SubsetSpec]],
    *,
    emit: Emit,
    max_workers: int | None = None,
    memory: ImageMemory | None = None,
    objects: ObjectCache | None = None,
    shards: Path | None = None,
) -> DatasetIndex:
    """Return every image of every subset, used or rejected.

    Files that `memory` knows, and that have not changed, are not opened; `objects` keeps what is
    read of object stores, the folder `shards` what lies where in tar shards. Emits the stage
    "index", and each rejected image; notices are returned only.

    Raises: DataError with all that is wrong: a folder that is missing or holds no images, a
    metadata file that fits none, a subset without any captions, no image that can be read.
    """
    started_s = time.monotonic()
    archives = ShardReader(shards, objects, emit)
    gathered, notices = _gather_all(datasets, archives)
    problems = [problem for subset in gathered for problem in subset.problems]
    if problems:
        raise DataError(problems=problems)
    total = sum(len(subset.candidates) for subset in gathered)
    emit(StageStarted(stage=STAGE, total=total, unit="images"))
    columns = Columns(objects, archives.shards)
    rejected: list[Rejected] = []
    done = 0
    reader = _Reader(memory or Forgetful(), max_workers or default_workers())
    try:
        for subset in gathered:
            tally = _Tally(subset)
            for read in reader.read(subset):
                tally.add(read, columns)
                done += len(read.part)
                emit(StageProgress(stage=STAGE, done=done))
            rejected += [*subset.rejected, *tally.rejected]
            for entry in (*subset.rejected, *tally.rejected):
                emit(ItemRejected(path=str(entry.path), reason=entry.reason))
            problems += _no_captions_at_all(subset, tally)
            notices += [
                *subset.notices,
                *_caption_notices(subset, tally),
                *_reading_notices(subset),
            ]
            subset.forget()
    finally:
        reader.close()
    if not problems and not columns.keys:
        problems += _nothing_usable(rejected)
    if problems:
        raise DataError(problems=problems)
    items, more = _balance_regularisation(columns.table(), datasets)
    emit(StageFinished(stage=STAGE, done=done, duration_s=time.monotonic() - started_s))
    return DatasetIndex(items=items, rejected=tuple(rejected), notices=(*notices, *more))


def default_workers() -> int:
    """Return how many threads read headers: they wait for the disk more than they compute."""
    return min(32, 4 * (os.cpu_count() or 1))


class _Tally:
    """What was read of one subset, added up."""

    def __init__(self, subset: Gathered) -> None:
        self._subset = subset
        self.num_items = 0
        self.rejected: list[Rejected] = []
        self.without_caption: list[str] = []
        self.with_unread_lines: list[str] = []

    def add(self, read: PartRead, columns: Columns) -> None:
        subset = self._subset
        for reading in read.readings.values():
            if reading.problem:
                self.rejected.append(
                    Rejected(
                        path=as_path(reading.candidate.path),
                        reason=reading.problem,
                        dataset=subset.dataset,
                        subset=subset.subset,
                    )
                )
        added = columns.add(read, subset)
        self.num_items += len(added.keys)
        if not all(added.captions):
            self.without_caption += [
                key for key, caption in zip(added.keys, added.captions, strict=True) if not caption
            ]
        self.with_unread_lines += [
            added.keys[row] for row in np.flatnonzero(added.unread_lines_N).tolist()
        ]


class _Reader:
    """Reads the candidates of subsets, some thousand at a time.

    Files are opened in threads. Known ones are only asked for: by this thread as long as the disk
    answers at once, since threads that hardly wait hold each other up; else in the threads too.
    """

    def __init__(self, memory: ImageMemory, max_workers: int) -> None:
        self._memory = memory
        self._ahead = 2 * max_workers
        self._workers = ThreadPoolExecutor(max_workers, thread_name_prefix=STAGE)
        self._answers_at_once = True

    def read(self, subset: Gathered) -> Iterator[PartRead]:
        """Yield the parts in order; few are in memory at a time."""
        pending: deque[Callable[[], PartRead]] = deque()
        for part in _parts(subset.candidates):
            pending.append(self._begin(part, all_lines=subset.spec.words.enable_wildcard))
            if len(pending) > self._ahead:
                yield self._noted(pending.popleft()())
        while pending:
            yield self._noted(pending.popleft()())

    def close(self) -> None:
        self._workers.shutdown(cancel_futures=True)

    def _begin(self, part: Candidates, *, all_lines: bool) -> Callable[[], PartRead]:
        known = self._memory.lookup(part.paths)
        if not self._answers_at_once:
            return self._workers.submit(read_part, part, known, all_lines=all_lines).result
        started_s = time.monotonic()
        known, same_N = compared(part, known, all_lines=all_lines)
        self._answers_at_once = time.monotonic() - started_s <= _AT_ONCE_S * len(part)
        rows = np.flatnonzero(~same_N).tolist()
        futures = [
            self._workers.submit(
                read_rows,
                part,
                known,
                rows[start : start + _OPENED_AT_ONCE],
                all_lines=all_lines,
            )
            for start in range(0, len(rows), _OPENED_AT_ONCE)
        ]

        def result() -> PartRead:
            readings: dict[int, Reading] = {}
            for future in futures:
                readings |= future.result()
            return PartRead(part, known, readings)

        return result

    def _noted(self, read: PartRead) -> PartRead:
        self._memory.note(
            [(one.candidate.path, one.new) for one in read.readings.values() if one.new is not None]
        )
        return read


def _gather_all(
    datasets: Sequence[Sequence[SubsetSpec]],
    archives: ShardReader,
) -> tuple[list[Gathered], list[Problem]]:
    """Gather all subsets but those that are switched off or stand twice in one dataset."""
    gathered: list[Gathered] = []
    notices: list[Problem] = []
    for dataset, subsets in enumerate(datasets):
        seen: set[tuple[str, Path]] = set()
        for subset, spec in enumerate(subsets):
            source = spec.metadata_file or spec.image_dir
            assert source is not None, "a subset has a folder or a metadata file"
            where = f"dataset {dataset + 1}, subset {subset + 1} ({source})"
            identity = ("file" if spec.metadata_file else "folder", Path(os.path.abspath(source)))
            if spec.num_repeats < 1:
                notices.append(Problem("left out, since num_repeats is below 1", where))
            elif identity in seen:
                fix = "put it into a [[datasets]] of its own to use it twice"
                notices.append(Problem("left out: the dataset has it already", where, fix))
            else:
                seen.add(identity)
                gathered.append(gather(spec, dataset, subset, archives))
    return gathered, notices


def _parts(candidates: Candidates) -> Iterator[Candidates]:
    for start in range(0, len(candidates), _IMAGES_AT_ONCE):
        yield candidates.part(start, start + _IMAGES_AT_ONCE)


def _no_captions_at_all(subset: Gathered, tally: _Tally) -> Iterator[Problem]:
    """A subset without a single caption is a mistake, unless `class_tokens` says otherwise."""
    spec = subset.spec
    if not tally.num_items or spec.class_tokens is not None:
        return
    if len(tally.without_caption) < tally.num_items:
        return
    count = plural(tally.num_items, "image")
    on_purpose = 'class_tokens = "" if they are to be trained without words'
    if spec.metadata_file:
        what = f"{count}, and not one has a caption or tags in the metadata"
        yield Problem(what, subset.place, f"add them, or set {on_purpose}")
        return
    wanted = with_dot(spec.caption_extension)
    others = [(kind, n) for kind, n in subset.caption_kinds().most_common() if kind != wanted]
    what = f'{count}, and not one has a caption in a file "<name>{wanted}"'
    if others:
        found = ", ".join(plural(n, f"{kind} file") for kind, n in others)
        fix = f'set caption_extension = "{others[0][0]}"'
        yield Problem(
            f"{what}; beside them lie {found}",
            subset.place,
            fix,
            "captions_end_otherwise",
            {"images": tally.num_items, "wanted": wanted, "other": others[0][0]},
        )
    else:
        yield Problem(
            what,
            subset.place,
            f"write captions, or set {on_purpose}",
            "no_captions",
            {"images": tally.num_items, "wanted": wanted},
        )


def _caption_notices(subset: Gathered, tally: _Tally) -> Iterator[Problem]:
    missing = tally.without_caption
    if missing and subset.spec.class_tokens is None:
        count = f"{len(missing)} of {plural(tally.num_items, 'image')}"
        yield Problem(
            f"{count} without a caption, trained with no words: {examples(missing)}", subset.place
        )
    if tally.with_unread_lines:
        count = plural(len(tally.with_unread_lines), "caption file")
        yield Problem(
            f"{count} with several lines, of which only the first is read: "
            f"{examples(tally.with_unread_lines)}",
            subset.place,
            "set enable_wildcard = true to draw one of the lines each time",
        )


def _reading_notices(subset: Gathered) -> Iterator[Problem]:
    notes = subset.candidates.source.notes()
    for note in notes[:_REASONS_SHOWN]:
        yield Problem(note, subset.place)
    if len(notes) > _REASONS_SHOWN:
        yield Problem(f"and {len(notes) - _REASONS_SHOWN} more notes on reading", subset.place)


def _nothing_usable(rejected: list[Rejected]) -> list[Problem]:
    """Say why there is no item at all, with the first reasons."""
    if not rejected:
        fix = "give a subset with num_repeats = 1"
        return [Problem("the dataset has no images", fix=fix, key="dataset_without_images")]
    shown = [Problem(entry.reason, str(entry.path)) for entry in rejected[:_REASONS_SHOWN]]
    summary = Problem(
        f"not one of {plural(len(rejected), 'image')} can be used",
        key="no_usable_image",
        values={"images": len(rejected)},
    )
    return [*shown, summary]


def _balance_regularisation(
    items: ItemTable, datasets: Sequence[Sequence[SubsetSpec]]
) -> tuple[ItemTable, list[Problem]]:
    """Repeat each dataset's regularisation images until they are as many as its training images.

    The first ones get one repeat more where it does not come out even. None is ever left out.
    """
    notices: list[Problem] = []
    repeats_N = items.repeats_N.copy()
    for dataset, subsets in enumerate(datasets):
        regular = [subset for subset, spec in enumerate(subsets) if spec.is_reg]
        if not regular:
            continue
        in_dataset_N = items.places_N2[:, 0] == dataset
        is_regular_N = in_dataset_N & np.isin(items.places_N2[:, 1], regular)
        rows = np.flatnonzero(is_regular_N)
        wanted = int(repeats_N[in_dataset_N & ~is_regular_N].sum())
        missing = wanted - int(repeats_N[rows].sum())
        if not len(rows) or missing <= 0:
            continue
        repeats_N[rows] += missing // len(rows)
        repeats_N[rows[: missing % len(rows)]] += 1
        notices.append(
            Problem(
                f"{plural(len(rows), 'regularisation image')} used {wanted} times an epoch, as "
                "often as the training images",
                f"dataset {dataset + 1}",
            )
        )
    return replace(items, repeats_N=repeats_N), notices
