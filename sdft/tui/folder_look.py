"""Counts what a folder holds for a training: images, captions, other files. Reads names only."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sdft.dataset.listing import IMAGE_EXTENSIONS, extension_of
from sdft.tui.draft import DATASET, Draft, with_subset
from sdft.tui.draft_values import image_dirs, stated, with_setting

TELL_EVERY_S = 0.2

CAPTION_EXTENSIONS = (".txt", ".caption", ".tags", ".cap")
"""Taken for captions where they lie beside an image of the same name, these first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderCounts:
    """What was counted so far."""

    path: Path
    images: int
    beside: tuple[tuple[str, int], ...]
    """Extension, and how many images have a file of it beside them; the most frequent first."""
    other: tuple[tuple[str, int], ...]
    """Files that are neither images nor beside one, by extension."""
    folders: int
    is_done: bool
    problem: str = ""

    def coverage(self, extension: str) -> float:
        """Return the share of the images that have such a file, 0 .. 1."""
        return dict(self.beside).get(extension, 0) / self.images if self.images else 0.0

    @property
    def likely_captions(self) -> str:
        """Return the extension that holds the captions, or an empty text."""
        return next((kind for kind, _ in self.beside if kind in CAPTION_EXTENSIONS), "")


def look_at(folder: Path) -> Iterator[FolderCounts]:
    """Count a folder without those in it; gives counts while it goes and the whole at the end."""
    stems: set[str] = set()
    others: dict[str, set[str]] = {}
    images = folders = 0
    told_s = time.monotonic()

    def counts(*, is_done: bool, problem: str = "") -> FolderCounts:
        beside: Counter[str] = Counter()
        other: Counter[str] = Counter()
        if is_done:
            for kind, names in others.items():
                both = len(names & stems)
                beside[kind] = both
                other[kind] = len(names) - both
        return FolderCounts(
            path=folder,
            images=images,
            beside=tuple((kind, n) for kind, n in beside.most_common() if n),
            other=tuple((kind, n) for kind, n in other.most_common() if n),
            folders=folders,
            is_done=is_done,
            problem=problem,
        )

    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                name = entry.name
                if name.startswith("."):
                    continue
                kind = extension_of(name)
                if kind in IMAGE_EXTENSIONS:
                    images += 1
                    stems.add(name[: len(name) - len(kind)])
                elif _is_folder(entry):
                    folders += 1
                else:
                    others.setdefault(kind, set()).add(name[: len(name) - len(kind)])
                if time.monotonic() - told_s > TELL_EVERY_S:
                    told_s = time.monotonic()
                    yield counts(is_done=False)
    except OSError as error:
        yield counts(is_done=True, problem=error.strerror or type(error).__name__)
        return
    yield counts(is_done=True)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def with_folder(draft: Draft, counts: FolderCounts, dataset: int = 0) -> Draft:
    """Add a folder; the first one decides how captions are called, if it has any."""
    dirs = image_dirs(draft, dataset)
    base = draft.file(DATASET).path.parent
    path = Path(os.path.abspath(counts.path))
    written = path.relative_to(base).as_posix() if path.is_relative_to(base) else str(path)
    if written in dirs:
        return draft
    draft = draft.with_text(DATASET, with_subset(draft.file(DATASET).text, written, dataset))
    if not counts.images and counts.folders:
        draft = with_setting(draft, "recursive", "true", subset=len(dirs), dataset=dataset)
    kind = counts.likely_captions
    if not dirs and kind and kind != stated(draft, "caption_extension", dataset=dataset).value:
        draft = with_setting(draft, "caption_extension", kind, dataset=dataset)
    return draft
