"""Finds the image that each key of a metadata file means.

In: the keys, and the listing of the subset's folder. Out: a path for each key that means just one
image, and words for all others.

A key is tried, with `\\` read as `/` where needed, as
  1. a path within the folder, with extension;
  2. a path that exists: absolute, or from the current folder, or from the metadata file's folder;
  3. a path within the folder without extension (the stems that sd-scripts' merge scripts write);
  4. a path of another place or machine whose last parts exist within the folder.
An absolute key may lie anywhere, since a person or their tool wrote it in full; a relative key that
climbs out of its folder by `..` is not followed, as moving the folder would silently change what
it means.
"""

from __future__ import annotations

import os
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from sdft.dataset.listing import Listing
from sdft.urls import UrlPath


@dataclass(slots=True)
class Matches:
    found: dict[str, tuple[str, Path]] = field(default_factory=dict)
    """By the metadata's key: the item's key and the image's path."""
    unfound: list[str] = field(default_factory=list)
    climbing: list[str] = field(default_factory=list)
    """Relative keys with `..`."""
    moved: list[str] = field(default_factory=list)
    """Keys that were found by their last parts only."""
    same_image: list[str] = field(default_factory=list)
    """Keys whose image another key has already."""
    ambiguous: dict[str, list[tuple[str, Path]]] = field(default_factory=dict)
    """Stems that fit several images, with those images' keys and paths."""


def match_keys(keys: Iterable[str], listing: Listing, metadata_file: Path) -> Matches:
    """Return what each key means."""
    names = _Names(listing)
    matches = Matches()
    taken: set[Path] = set()
    for key in keys:
        if key.replace("\\", "/").startswith("../") or "/../" in key.replace("\\", "/"):
            matches.climbing.append(key)
            continue
        hit = _find(key, names, metadata_file.parent)
        if hit is None:
            hit = _by_last_parts(key, names)
            if hit is not None:
                matches.moved.append(key)
        if hit is None:
            several = names.several_with_stem(key)
            if several:
                matches.ambiguous[key] = [(name, names.path(name)) for name in several]
            else:
                matches.unfound.append(key)
        elif hit[1] in taken:
            matches.same_image.append(key)
        else:
            taken.add(hit[1])
            matches.found[key] = hit
    return matches


class _Names:
    """The listing's image keys, looked up exactly, by Unicode form, and by stem."""

    def __init__(self, listing: Listing) -> None:
        self.root = listing.root
        root = listing.root if isinstance(listing.root, UrlPath) else os.path.abspath(listing.root)
        self.root_text = str(root).replace("\\", "/").rstrip("/") + "/"
        self._exact = {
            folder.prefix + name: folder for folder in listing.folders for name in folder.images
        }
        forms = Counter(map(_one_form, self._exact))
        self._by_form = {_one_form(k): k for k in self._exact if forms[_one_form(k)] == 1}
        self._by_stem: dict[str, list[str]] = {}
        for name in self._exact:
            self._by_stem.setdefault(_one_form(os.path.splitext(name)[0]), []).append(name)

    def get(self, text: str) -> tuple[str, Path] | None:
        name = text if text in self._exact else self._by_form.get(_one_form(text))
        return None if name is None else (name, self.path(name))

    def path(self, name: str) -> Path:
        folder = self._exact[name]
        return folder.path / name.removeprefix(folder.prefix)

    def get_stem(self, text: str) -> tuple[str, Path] | None:
        names = self._by_stem.get(_one_form(text), [])
        return (names[0], self.path(names[0])) if len(names) == 1 else None

    def several_with_stem(self, key: str) -> list[str]:
        names = self._by_stem.get(_one_form(key.replace("\\", "/").removeprefix("./")), [])
        return names if len(names) > 1 else []


def _one_form(text: str) -> str:
    """Bring the several Unicode forms of one text (macOS writes another than Windows) to one."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def _spellings(key: str) -> Iterator[str]:
    """Give the key as it stands, and with Windows' separators turned where it has any."""
    yield key.removeprefix("./")
    if "\\" in key:
        yield key.replace("\\", "/").removeprefix("./")


def _find(key: str, names: _Names, metadata_folder: Path) -> tuple[str, Path] | None:
    for text in _spellings(key):
        within = text.removeprefix(names.root_text)
        hit = names.get(within) or _existing(text, names, metadata_folder)
        if hit is not None:
            return hit
    for text in _spellings(key):
        hit = names.get_stem(text.removeprefix(names.root_text))
        if hit is not None:
            return hit
    return None


def _existing(text: str, names: _Names, metadata_folder: Path) -> tuple[str, Path] | None:
    """Return a file outside of the listing (or in a subfolder that it leaves out)."""
    for base in (names.root, Path(), metadata_folder):
        path = base / text
        try:
            if path.is_file():
                return _item_key(path, (names.root, metadata_folder)), path
        except (OSError, ValueError):
            # A key that cannot be a path here: too long, or with a zero byte.
            continue
    return None


def _item_key(path: Path, bases: tuple[Path, ...]) -> str:
    """Return the path from the first base that holds it, else the absolute path."""
    whole = Path(os.path.abspath(path))
    for base in bases:
        base_whole = Path(os.path.abspath(base))
        if whole.is_relative_to(base_whole):
            return whole.relative_to(base_whole).as_posix()
    return whole.as_posix()


def _by_last_parts(key: str, names: _Names) -> tuple[str, Path] | None:
    parts = key.replace("\\", "/").split("/")
    for start in range(1, len(parts)):
        tail = "/".join(parts[start:])
        hit = names.get(tail) or names.get_stem(tail)
        if hit is not None:
            return hit
    return None
