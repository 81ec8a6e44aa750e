"""`sdft metadata`: merge, clean, check, show, undo.

In: images, word files, metadata files. Out: metadata files, or what is odd about them. The rules
live in `sdft.dataset`; here they are put together, and what is replaced is kept for `undo`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from sdft.dataset.changes import Change, changes_between
from sdft.dataset.image_list import ListedImage, common_folder, list_images
from sdft.dataset.merging import Merged, merge_words
from sdft.dataset.metadata_file import (
    SUFFIXES,
    Entries,
    check_suffix,
    fill_metadata,
    read_metadata,
)
from sdft.dataset.own_rules import Rules, clean_entries, read_rules
from sdft.dataset.word_checks import (
    Finding,
    check_entries,
    points_outside,
    tag_frequencies,
    word_frequencies,
)
from sdft.dataset.word_files import with_dot
from sdft.dataset.write_log import (
    FOREIGN,
    Undone,
    WriteLog,
    logged_folders,
    undo,
)
from sdft.errors import DataError, Problem, UserError
from sdft.events import Emit, Notice

NUM_NOTICES_SHOWN = 20
"""More of one kind are counted, not listed; the JSON result has them all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenMetadata:
    """What `merge` or `clean` did, or with a dry run would do."""

    out: Path
    entries: int
    changes: tuple[Change, ...]
    written: bool
    """False after a dry run, and where the file already says just this."""
    counts: Mapping[str, int]
    """What else there is to tell in numbers, by its name in the JSON result."""
    without_words: tuple[str, ...] = ()
    image_dir: Path | None = None
    """The folder that the keys start from; none where they are full paths or not known."""
    problems: tuple[Problem, ...] = ()

    def as_json(self) -> dict[str, Any]:
        return {
            "out": str(self.out),
            "entries": self.entries,
            "changed": len(self.changes),
            "written": self.written,
            **self.counts,
            "without_words": list(self.without_words),
            "image_dir": None if self.image_dir is None else str(self.image_dir),
            "problems": [problem.as_json() for problem in self.problems],
        }


def run_merge(
    patterns: Sequence[str],
    *,
    out: Path,
    in_json: Path | None = None,
    caption_extension: str = ".caption",
    tags_extension: str = ".txt",
    full_path: bool = False,
    recursive: bool = False,
    overwrite: bool = False,
    dry_run: bool = False,
    command_line: str = "sdft metadata merge",
    emit: Emit,
) -> WrittenMetadata:
    """Merge captions and tags into `out`; what it already holds is kept and added to.

    Raises: DataError with every word file that cannot be read, in which case nothing is written.
    """
    check_suffix(out)
    images = _listed(patterns, recursive, emit)
    source = in_json or (out if out.is_file() else None)
    existing = read_metadata(source) if source is not None else {}
    merged = merge_words(
        images,
        caption_extension=with_dot(caption_extension),
        tags_extension=with_dot(tags_extension),
        full_path=full_path,
        existing=existing,
        overwrite=overwrite,
    )
    _refuse_outside(existing, out)
    if merged.problems:
        raise DataError(problems=merged.problems)
    _tell(emit, merged.notices, "words")
    _tell_missing(emit, images, merged, caption_extension, tags_extension)
    changes = changes_between(existing, merged.entries)
    writes = not dry_run and (bool(changes) or source != out)
    if writes:
        _write(out, merged.entries, command_line, overwrite=overwrite or source == out)
    return WrittenMetadata(
        out=out,
        entries=len(merged.entries),
        changes=changes,
        written=writes,
        counts={
            "images": len(images),
            "added": merged.num_added,
            "replaced": merged.num_replaced,
            "kept": merged.num_kept,
        },
        without_words=merged.without_words,
        image_dir=merged.base,
        problems=merged.notices,
    )


def run_clean(
    source: Path,
    *,
    out: Path | None = None,
    rules_file: Path | None = None,
    overwrite: bool = False,
    dry_run: bool = False,
    command_line: str = "sdft metadata clean",
    emit: Emit,
) -> WrittenMetadata:
    """Clean a metadata file into `out`, or in place.

    Raises: UserError where `out` exists and is neither `source` nor made by `sdft`.
    """
    out = source if out is None else out
    check_suffix(out)
    entries = read_metadata(source)
    _refuse_outside(entries, source)
    rules = Rules() if rules_file is None else _rules(rules_file)
    cleaned = clean_entries(entries, rules)
    _tell(emit, cleaned.notices, "cleaning")
    changes = changes_between(entries, cleaned.entries)
    writes = not dry_run and (bool(changes) or out != source)
    if writes:
        _write(out, cleaned.entries, command_line, overwrite=overwrite or out == source)
    return WrittenMetadata(
        out=out,
        entries=len(cleaned.entries),
        changes=changes,
        written=writes,
        counts={
            "without_tags": cleaned.num_without_tags,
            "without_caption": cleaned.num_without_caption,
        },
        problems=cleaned.notices,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckResult:
    entries: int
    images: int
    findings: tuple[Finding, ...]

    @property
    def num_errors(self) -> int:
        return sum(finding.is_error for finding in self.findings)

    def as_json(self) -> dict[str, Any]:
        return {
            "entries": self.entries,
            "images": self.images,
            "errors": self.num_errors,
            "findings": [asdict(finding) for finding in self.findings],
            "problems": [
                {"what": f"{finding.kind}: {finding.what}", "where": finding.where, "fix": ""}
                for finding in self.findings
                if finding.is_error
            ],
        }


def run_check(
    places: Sequence[str],
    *,
    recursive: bool = False,
    caption_extension: str = ".caption",
    tags_extension: str = ".txt",
    emit: Emit,
) -> CheckResult:
    """Look for what is odd in a metadata file and its images, or in images and their word files.

    `places` are at most one metadata file, and images. Without images those of the metadata
    file's folder count; without a metadata file the word files beside the images do.

    Raises: UserError for two metadata files; DataError for word files that cannot be read.
    """
    files = [Path(place) for place in places if Path(place).suffix.lower() in SUFFIXES]
    if len(files) > 1:
        raise UserError(what="one metadata file at a time", where=", ".join(map(str, files)))
    patterns = [place for place in places if Path(place).suffix.lower() not in SUFFIXES]
    if files:
        entries = read_metadata(files[0])
        images = _images_of_metadata(files[0], patterns, recursive)
        base = (common_folder(images) if patterns else None) or files[0].parent.absolute()
    else:
        images = _listed(patterns, recursive, emit)
        merged = merge_words(
            images,
            caption_extension=with_dot(caption_extension),
            tags_extension=with_dot(tags_extension),
        )
        if merged.problems:
            raise DataError(problems=merged.problems)
        _tell(emit, merged.notices, "words")
        entries = {key: entry for key, entry in merged.entries.items() if entry}
        base = merged.base or Path.cwd()
    from sdft.formats.clip_tokens import ClipTokenizer

    findings = check_entries(
        entries,
        base=base,
        images=[image.place for image in images],
        count_tokens=ClipTokenizer("eos").count,
    )
    return CheckResult(entries=len(entries), images=len(images), findings=findings)


@dataclass(frozen=True, slots=True, kw_only=True)
class ShowResult:
    entries: int
    tags: tuple[tuple[str, int], ...]
    """With the number of entries that have it, most frequent first."""
    words: tuple[tuple[str, int], ...] = field(default=())
    """Words of captions, likewise."""

    def as_json(self) -> dict[str, Any]:
        return {
            "entries": self.entries,
            "tags": dict(self.tags),
            "words": dict(self.words),
            "problems": [],
        }


def run_show(path: Path) -> ShowResult:
    """Count how often each tag, and each word of a caption, appears."""
    entries = read_metadata(path)
    return ShowResult(
        entries=len(entries),
        tags=tuple(tag_frequencies(entries)),
        words=tuple(word_frequencies(entries)),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class UndoResult:
    undone: tuple[Undone, ...]

    def as_json(self) -> dict[str, Any]:
        return {
            "commands": [one.line for one in self.undone],
            "restored": [str(path) for one in self.undone for path in one.restored],
            "edited": [str(path) for one in self.undone for path in one.edited],
            "new": [str(path) for one in self.undone for path in one.new],
            "problems": [],
        }


def run_undo(places: Sequence[str]) -> UndoResult:
    """Put back what the last command replaced in a metadata file or among a folder's words.

    Raises: UserError where nothing was ever written.
    """
    undone = []
    for place in map(Path, places):
        if not place.exists():
            raise UserError(what="no such file or folder", where=str(place))
        one = undo(logged_folders(place)) if place.is_dir() else undo([place.parent], place.name)
        if not one.line:
            raise UserError(
                what="there is nothing to undo",
                where=str(place),
                fix="name the metadata file, or the folder whose captions were written",
            )
        undone.append(one)
    return UndoResult(undone=tuple(undone))


def _rules(path: Path) -> Rules:
    if not path.is_file():
        raise UserError(what="no such rules file", where=str(path))
    return read_rules(path)


def _write(out: Path, entries: Entries, command_line: str, *, overwrite: bool) -> None:
    log = WriteLog(line=command_line, settings=_digest(command_line))
    if not overwrite and log.origin(out) == FOREIGN:
        raise UserError(
            what="this file exists and was not made by sdft",
            where=str(out),
            fix="--overwrite replaces it (metadata undo brings it back); or choose another name",
        )
    with log.writing(out) as part:
        fill_metadata(part, entries, out)
    log.finish()


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def _listed(patterns: Sequence[str], recursive: bool, emit: Emit) -> tuple[ListedImage, ...]:
    left_out: list[Problem] = []
    images = list_images(patterns, recursive=recursive, note=left_out.append)
    _tell(emit, left_out, "shards")
    return images


def _images_of_metadata(
    path: Path, patterns: Sequence[str], recursive: bool
) -> tuple[ListedImage, ...]:
    if patterns:
        return list_images(patterns, recursive=recursive)
    try:
        return list_images([str(path.parent)], recursive=True)
    except DataError:
        # The images may lie elsewhere; then each key is looked up by itself.
        return ()


def _refuse_outside(entries: Mapping[str, object], path: Path) -> None:
    problems = [
        Problem("this key points outside the images' folder", f'{path}, "{key}"', "remove it")
        for key in entries
        if points_outside(key)
    ]
    if problems:
        raise DataError(problems=problems)


def _tell(emit: Emit, problems: Sequence[Problem], topic: str) -> None:
    for problem in problems[:NUM_NOTICES_SHOWN]:
        emit(Notice(severity="warning", topic=topic, message=str(problem)))
    hidden = len(problems) - NUM_NOTICES_SHOWN
    if hidden > 0:
        emit(Notice(severity="warning", topic=topic, message=f"and {hidden} more"))


def _tell_missing(
    emit: Emit,
    images: Sequence[ListedImage],
    merged: Merged,
    caption_extension: str,
    tags_extension: str,
) -> None:
    missing = len(merged.without_words)
    if not missing:
        return
    others = {
        file.suffix
        for folder in {image.path.parent for image in images if not image.in_shard}
        for file in folder.iterdir()
        if file.suffix.lower() in (".txt", ".caption", ".cap", ".tags", ".json")
    } - {with_dot(caption_extension), with_dot(tags_extension)}
    hint = f"; there are files with {', '.join(sorted(others))}" if others else ""
    message = f"{missing} of {len(images)} images have neither caption nor tags{hint}"
    emit(Notice(severity="warning", topic="words", message=message))
