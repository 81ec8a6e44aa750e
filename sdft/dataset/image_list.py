"""The images that a command line names.

In: folders, files and wildcards. Out: the images, in a fixed order, each with the folder that it
was found through. Wildcards are expanded here because cmd.exe leaves them to the program.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from sdft.dataset.listing import IMAGE_EXTENSIONS, is_image, list_folder
from sdft.errors import DataError, Problem, UserError


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedImage:
    """One image on the disk."""

    path: Path
    """Absolute."""
    root: Path
    """The folder that was named, or that the named file lies in; absolute."""


def list_images(patterns: Sequence[str], *, recursive: bool = False) -> tuple[ListedImage, ...]:
    """Return the images of folders, files and wildcards, each once.

    A folder gives the images in it, with `recursive` those below it too; a wildcard may hold `**`.

    Raises: UserError for a name that is neither there nor a wildcard; DataError where there are
        no images at all.
    """
    problems: list[Problem] = []
    images: dict[Path, ListedImage] = {}
    for pattern in patterns:
        places = _places(pattern)
        if not places:
            problems.append(_nothing_there(pattern))
        for place in places:
            root = place if place.is_dir() else place.parent
            for path in _images_of(place, recursive):
                images.setdefault(path, ListedImage(path=path, root=root))
    if problems:
        raise UserError(problems=problems)
    if not images:
        raise DataError(
            what="no images",
            where=", ".join(patterns),
            fix=f"images end in {' '.join(sorted(IMAGE_EXTENSIONS))}"
            + ("" if recursive else "; with --recursive folders below are searched too"),
        )
    return tuple(images.values())


def common_folder(images: Sequence[ListedImage]) -> Path | None:
    """Return the folder that all images' roots lie in, or None on different drives."""
    try:
        return Path(os.path.commonpath([str(image.root) for image in images]))
    except ValueError:
        return None


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
    if glob.has_magic(pattern):
        return Problem("the wildcard fits no file", pattern)
    return Problem("no such file or folder", pattern, "check the path; put spaces in quotes")


def _images_of(place: Path, recursive: bool) -> Iterator[Path]:
    if not place.is_dir():
        if is_image(place.name):
            yield place
        return
    for folder in list_folder(place, recursive=recursive).folders:
        for name in folder.images:
            yield folder.path / name
