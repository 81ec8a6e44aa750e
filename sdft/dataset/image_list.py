"""The images that a command line names.

In: folders, files and wildcards. Out: the images, in a fixed order, each with the folder that it
was found through. Wildcards are expanded here because cmd.exe leaves them to the program.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from sdft.dataset.listing import IMAGE_EXTENSIONS, is_image, list_folder
from sdft.dataset.shard_images import images_in_shards
from sdft.dataset.shards import shards_of
from sdft.errors import DataError, Problem, UserError
from sdft.urls import is_url


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedImage:
    """One image on the disk."""

    path: Path
    """Absolute; of one in a tar shard as if the shard were a folder."""
    root: Path
    """The folder that was named, or that the named file lies in; absolute."""
    key: str
    """Its path below `root` with `/`; of one in a tar shard as if that were unpacked there."""

    @property
    def place(self) -> Path:
        """Return where it lies, or would lie if its shard were unpacked."""
        return self.root / self.key

    @property
    def in_shard(self) -> bool:
        return shards_of(self.path) is not None


def _unheard(problem: Problem) -> None:
    pass


def list_images(
    patterns: Sequence[str],
    *,
    recursive: bool = False,
    note: Callable[[Problem], None] = _unheard,
) -> tuple[ListedImage, ...]:
    """Return the images of folders, files and wildcards, each once.

    A folder gives the images in it, with `recursive` those below it too; a wildcard may hold `**`.
    A folder without images gives those in its tar shards; `note` hears what of them is left out.

    Raises: UserError for a name that is neither there nor a wildcard; DataError where there are
        no images at all, or a shard cannot be used.
    """
    problems: list[Problem] = []
    images: dict[Path, ListedImage] = {}
    for pattern in patterns:
        places = _places(pattern)
        if not places:
            problems.append(_nothing_there(pattern))
        for place in places:
            root = place if place.is_dir() else place.parent
            for key, path in _images_of(place, recursive, note):
                images.setdefault(path, ListedImage(path=path, root=root, key=key))
    if problems:
        raise UserError(problems=problems)
    if not images:
        raise DataError(
            what="no images",
            where=", ".join(patterns),
            fix=f"images end in {' '.join(sorted(IMAGE_EXTENSIONS))}"
            + ("" if recursive else "; with --recursive folders below are searched too")
            + _of_shards(patterns),
        )
    return tuple(images.values())


def common_folder(images: Sequence[ListedImage]) -> Path | None:
    """Return the folder that all images' roots lie in, or None on different drives."""
    try:
        return Path(os.path.commonpath([str(image.root) for image in images]))
    except ValueError:
        return None


def _of_shards(patterns: Sequence[str]) -> str:
    named = any(pattern.lower().endswith(".tar") for pattern in patterns)
    return "; of tar shards name the folder that they lie in" if named else ""


def _places(pattern: str) -> list[Path]:
    named = Path(pattern)
    # A real name comes first: folders may well be called "cats [2023]".
    if named.exists():
        return [named.absolute()]
    if not glob.has_magic(pattern):
        return []
    matches = sorted(glob.glob(pattern, recursive=True))
    return [Path(match).absolute() for match in matches]


def _nothing_there(pattern: str) -> Problem:
    if is_url(pattern):
        fix = "bring them to a folder first; training reads them where they are"
        return Problem("words are made for images on this machine's disk only", pattern, fix)
    if glob.has_magic(pattern):
        return Problem("the wildcard fits no file", pattern)
    return Problem("no such file or folder", pattern, "check the path; put spaces in quotes")


def _images_of(
    place: Path, recursive: bool, note: Callable[[Problem], None]
) -> Iterator[tuple[str, Path]]:
    """Give the images' keys and paths."""
    if not place.is_dir():
        if is_image(place.name):
            yield place.name, place
        return
    listing = list_folder(place, recursive=recursive)
    for folder in listing.folders:
        for name in folder.images:
            yield folder.prefix + name, folder.path / name
    yield from images_in_shards(listing, note)
