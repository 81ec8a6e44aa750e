"""Makes the index of all images: what there is, how large, with which words.

In: the subsets of each dataset. Out: a DatasetIndex. Reads headers and caption files, decodes no
pixels; so a file whose pixels are broken is found later, when it is decoded.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from sdft.dataset import headers
from sdft.dataset.captions import raw_caption
from sdft.dataset.gathering import Candidate, Gathered, examples, gather, plural, with_dot
from sdft.dataset.records import DatasetIndex, Item, Rejected, SubsetSpec
from sdft.errors import DataError, Problem
from sdft.events import Emit, ItemRejected, StageFinished, StageProgress, StageStarted

STAGE = "index"

_IMAGES_AT_ONCE = 256
"""One task of a thread; large enough that handing it over costs nothing."""

_REASONS_SHOWN = 10


def build_index(
    datasets: Sequence[Sequence[SubsetSpec]], *, emit: Emit, max_workers: int | None = None
) -> DatasetIndex:
    """Return every image of every subset, used or rejected.

    Emits the stage "index", and each rejected image; notices are returned only.

    Raises: DataError with all that is wrong: a folder that is missing or holds no images, a
    metadata file that fits none, a subset without any captions, no image that can be read.
    """
    started_s = time.monotonic()
    gathered, notices = _gather_all(datasets)
    problems = [problem for subset in gathered for problem in subset.problems]
    if problems:
        raise DataError(problems=problems)
    total = sum(len(subset.candidates) for subset in gathered)
    emit(StageStarted(stage=STAGE, total=total, unit="images"))
    items: list[Item] = []
    rejected: list[Rejected] = []
    done = 0
    workers = ThreadPoolExecutor(max_workers or default_workers(), thread_name_prefix=STAGE)
    try:
        for subset in gathered:
            tally = _Tally()
            for readings in workers.map(lambda part: _read_part(*part), _parts(subset)):
                tally.add(readings)
                done += len(readings)
                emit(StageProgress(stage=STAGE, done=done))
            items += tally.items
            rejected += [*subset.rejected, *tally.rejected]
            for entry in (*subset.rejected, *tally.rejected):
                emit(ItemRejected(path=str(entry.path), reason=entry.reason))
            problems += _no_captions_at_all(subset, tally)
            notices += [*subset.notices, *_caption_notices(subset, tally)]
    finally:
        workers.shutdown(cancel_futures=True)
    if not problems and not items:
        problems += _nothing_usable(rejected)
    if problems:
        raise DataError(problems=problems)
    items, more = _balance_regularisation(items, datasets)
    emit(StageFinished(stage=STAGE, done=done, duration_s=time.monotonic() - started_s))
    return DatasetIndex(items=tuple(items), rejected=tuple(rejected), notices=(*notices, *more))


def default_workers() -> int:
    """Return how many threads read headers: they wait for the disk more than they compute."""
    return min(32, 4 * (os.cpu_count() or 1))


@dataclass(slots=True)
class _Reading:
    """What came of one candidate."""

    result: Item | Rejected
    has_caption: bool
    unread_lines: int


class _Tally:
    """The readings of one subset, added up."""

    def __init__(self) -> None:
        self.items: list[Item] = []
        self.rejected: list[Rejected] = []
        self.without_caption: list[str] = []
        self.with_unread_lines: list[str] = []

    def add(self, readings: list[_Reading]) -> None:
        for reading in readings:
            if isinstance(reading.result, Rejected):
                self.rejected.append(reading.result)
                continue
            self.items.append(reading.result)
            if not reading.has_caption:
                self.without_caption.append(reading.result.key)
            if reading.unread_lines:
                self.with_unread_lines.append(reading.result.key)


def _gather_all(
    datasets: Sequence[Sequence[SubsetSpec]],
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
                gathered.append(gather(spec, dataset, subset))
    return gathered, notices


def _parts(subset: Gathered) -> Iterator[tuple[Gathered, list[Candidate]]]:
    remaining = iter(subset.candidates)
    while part := list(islice(remaining, _IMAGES_AT_ONCE)):
        yield subset, part


def _read_part(subset: Gathered, candidates: list[Candidate]) -> list[_Reading]:
    return [_read(subset, candidate) for candidate in candidates]


def _read(subset: Gathered, candidate: Candidate) -> _Reading:
    """Read one header and caption. Whatever is wrong with them becomes a reason in words."""
    try:
        with open(candidate.path, "rb", opener=_open_without_waiting) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                return _rejected(subset, candidate, "not a file but a device or a pipe")
            header = headers.read(file)
        caption, unread_lines = _caption_of(subset, candidate)
    except DataError as error:
        return _rejected(subset, candidate, error.problems[0].what)
    except OSError as error:
        return _rejected(subset, candidate, f"cannot be read ({error.strerror or error})")
    item = Item(
        key=candidate.key,
        path=candidate.path,
        size=header.upright,
        caption=caption or subset.spec.class_tokens or "",
        dataset=subset.dataset,
        subset=subset.subset,
        num_repeats=subset.spec.num_repeats,
        file_bytes=status.st_size,
        mtime_ns=status.st_mtime_ns,
    )
    return _Reading(item, bool(caption), unread_lines)


def _open_without_waiting(path: str, flags: int) -> int:
    # A named pipe would wait for a writer for ever; Windows has neither the pipe nor the flag.
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _rejected(subset: Gathered, candidate: Candidate, reason: str) -> _Reading:
    rejected = Rejected(
        path=candidate.path, reason=reason, dataset=subset.dataset, subset=subset.subset
    )
    return _Reading(rejected, False, 0)


def _caption_of(subset: Gathered, candidate: Candidate) -> tuple[str, int]:
    if candidate.caption is not None:
        return candidate.caption, 0
    if candidate.caption_file is None:
        return "", 0
    name = candidate.caption_file.name
    try:
        content = candidate.caption_file.read_bytes()
        return raw_caption(content, all_lines=subset.spec.words.enable_wildcard)
    except DataError as error:
        problem = error.problems[0]
        raise DataError(f"its caption file {name} is {problem.what}; {problem.fix}") from error
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise DataError(f"its caption file {name} cannot be read ({reason})") from error


def _no_captions_at_all(subset: Gathered, tally: _Tally) -> Iterator[Problem]:
    """A subset without a single caption is a mistake, unless `class_tokens` says otherwise."""
    spec = subset.spec
    if not tally.items or spec.class_tokens is not None:
        return
    if len(tally.without_caption) < len(tally.items):
        return
    count = plural(len(tally.items), "image")
    on_purpose = 'class_tokens = "" if they are to be trained without words'
    if spec.metadata_file:
        what = f"{count}, and not one has a caption or tags in the metadata"
        yield Problem(what, subset.place, f"add them, or set {on_purpose}")
        return
    wanted = with_dot(spec.caption_extension)
    others = [(kind, n) for kind, n in subset.caption_kinds.most_common() if kind != wanted]
    what = f'{count}, and not one has a caption in a file "<name>{wanted}"'
    if others:
        found = ", ".join(plural(n, f"{kind} file") for kind, n in others)
        fix = f'set caption_extension = "{others[0][0]}"'
        yield Problem(f"{what}; beside them lie {found}", subset.place, fix)
    else:
        yield Problem(what, subset.place, f"write captions, or set {on_purpose}")


def _caption_notices(subset: Gathered, tally: _Tally) -> Iterator[Problem]:
    missing = tally.without_caption
    if missing and subset.spec.class_tokens is None:
        count = f"{len(missing)} of {plural(len(tally.items), 'image')}"
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


def _nothing_usable(rejected: list[Rejected]) -> list[Problem]:
    """Say why there is no item at all, with the first reasons."""
    if not rejected:
        return [Problem("the dataset has no images", fix="give a subset with num_repeats = 1")]
    shown = [Problem(entry.reason, str(entry.path)) for entry in rejected[:_REASONS_SHOWN]]
    return [*shown, Problem(f"not one of {plural(len(rejected), 'image')} can be used")]


def _balance_regularisation(
    items: list[Item], datasets: Sequence[Sequence[SubsetSpec]]
) -> tuple[list[Item], list[Problem]]:
    """Repeat each dataset's regularisation images until they are as many as its training images.

    The first ones get one repeat more where it does not come out even. None is ever left out.
    """
    notices: list[Problem] = []
    for dataset, subsets in enumerate(datasets):
        if not any(spec.is_reg for spec in subsets):
            continue
        numbers = [n for n, item in enumerate(items) if item.dataset == dataset]
        regular = [n for n in numbers if subsets[items[n].subset].is_reg]
        wanted = sum(items[n].num_repeats for n in numbers) - sum(
            items[n].num_repeats for n in regular
        )
        missing = wanted - sum(items[n].num_repeats for n in regular)
        if not regular or missing <= 0:
            continue
        for place, n in enumerate(regular):
            more = missing // len(regular) + (place < missing % len(regular))
            items[n] = replace(items[n], num_repeats=items[n].num_repeats + more)
        notices.append(
            Problem(
                f"{plural(len(regular), 'regularisation image')} used {wanted} times an epoch, as "
                "often as the training images",
                f"dataset {dataset + 1}",
            )
        )
    return items, notices
