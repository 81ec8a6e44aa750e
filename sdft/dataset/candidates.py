"""Image files that are not opened yet, in columns.

A record for each of a million files would cost more time than asking the disk for them.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from sdft.dataset.sources import LOCAL, Source


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """An image file that is not opened yet."""

    key: str
    path: str
    caption: str | None
    """Known already (from metadata), or None."""
    caption_file: str | None


@dataclass(slots=True)
class Candidates:
    """Many of them; one entry of each column is one file."""

    keys: list[str] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    caption_names: list[str] = field(default_factory=list)
    """Of the caption files; empty where there is none."""
    caption_files: list[str] = field(default_factory=list)
    """Their paths."""
    captions: list[str] | None = None
    """Known already (from metadata), or None; then there are no caption files."""
    sizes_N2: np.ndarray | None = None
    """Known already (from metadata), 0 where they are not; or None. int64, width and height."""
    source: Source = LOCAL
    """Where all of them lie."""

    def __len__(self) -> int:
        return len(self.keys)

    def row(self, number: int) -> Candidate:
        return Candidate(
            key=self.keys[number],
            path=self.paths[number],
            caption=None if self.captions is None else self.captions[number],
            caption_file=self.caption_files[number] or None,
        )

    def part(self, start: int, stop: int) -> Candidates:
        """Return some of them."""
        return Candidates(
            keys=self.keys[start:stop],
            paths=self.paths[start:stop],
            caption_names=self.caption_names[start:stop],
            caption_files=self.caption_files[start:stop],
            captions=None if self.captions is None else self.captions[start:stop],
            sizes_N2=None if self.sizes_N2 is None else self.sizes_N2[start:stop],
            source=self.source,
        )

    def sort(self) -> None:
        """Put them in the order of their keys."""
        order = sorted(range(len(self)), key=self.keys.__getitem__)
        if order == list(range(len(self))):
            return
        self.keys = [self.keys[number] for number in order]
        self.paths = [self.paths[number] for number in order]
        self.caption_names = [self.caption_names[number] for number in order]
        self.caption_files = [self.caption_files[number] for number in order]
        if self.captions is not None:
            self.captions = [self.captions[number] for number in order]
        if self.sizes_N2 is not None:
            self.sizes_N2 = self.sizes_N2[order]
