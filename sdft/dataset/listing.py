"""Lists a folder once, in an order that does not depend on the file system.

In: a folder. Out: the files of each folder in it, images and others apart.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

IMAGE_EXTENSIONS = frozenset(
    {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif"}
)
"""Without regard to case."""


@dataclass(slots=True)
class Folder:
    """The files of one folder, without those of its subfolders."""

    path: Path
    prefix: str
    """Its path from the root with `/` at the end; empty for the root itself."""
    images: list[str] = field(default_factory=list)
    """Names, sorted."""
    others: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Listing:
    root: Path
    folders: list[Folder]
    num_hidden: int = 0
    """Images and folders whose name begins with a dot; they are passed over."""
    seen_twice: list[Path] = field(default_factory=list)
    """Links to folders that are in the listing already."""
    unreadable: list[tuple[Path, str]] = field(default_factory=list)
    """Folders that could not be listed, and why."""
    subfolders_left: list[Path] = field(default_factory=list)
    """Not looked into, since the listing is not recursive."""

    def image_keys(self) -> Iterator[str]:
        """Give every image's path from the root with `/`, in order."""
        for folder in self.folders:
            for name in folder.images:
                yield folder.prefix + name

    def num_images(self) -> int:
        return sum(len(folder.images) for folder in self.folders)

    def other_extensions(self) -> Counter[str]:
        """Count the files that are no images by extension."""
        names = (name for folder in self.folders for name in folder.others)
        return Counter(extension_of(name) or "no extension" for name in names)


def extension_of(name: str) -> str:
    """Return `.png` for `a.PNG`; empty where there is none."""
    # Half of the time of a listing goes into this; splitext is for names that begin with dots.
    dot = name.rfind(".")
    if dot > 0 and name[0] != ".":
        return name[dot:].lower()
    return os.path.splitext(name)[1].lower()


def is_image(name: str) -> bool:
    return extension_of(name) in IMAGE_EXTENSIONS


def list_folder(root: Path, *, recursive: bool) -> Listing:
    """Return what is in `root`. Follows links to folders, each real folder once.

    Raises: OSError where the root itself cannot be listed.
    """
    listing = Listing(root=root, folders=[])
    pending = [(root, "")]
    visited: set[tuple[int, int]] = set()
    while pending:
        path, prefix = pending.pop()
        try:
            status = path.stat()
            identity = (status.st_dev, status.st_ino)
            if identity in visited:
                listing.seen_twice.append(path)
                continue
            visited.add(identity)
            entries = list(os.scandir(path))
        except OSError as error:
            if path == root:
                raise
            listing.unreadable.append((path, error.strerror or type(error).__name__))
            continue
        below = _sort_entries(listing, Folder(path, prefix), entries)
        if recursive:
            # The last one pushed is looked into first.
            pending += [(path / name, f"{prefix}{name}/") for name in reversed(below)]
        else:
            listing.subfolders_left += [path / name for name in below]
    return listing


def _sort_entries(listing: Listing, folder: Folder, entries: list[os.DirEntry[str]]) -> list[str]:
    """Put the entries where they belong and return the names of subfolders."""
    # Whole columns: a step of the interpreter for each of a million names counts.
    folders = frozenset(entry.name for entry in entries if _is_folder(entry))
    names = sorted([entry.name for entry in entries])
    # Copies and thumbnails of file managers and notebooks; globbing passes them over too.
    hidden = [name for name in names if name[0] == "."]
    listing.num_hidden += sum(name in folders or is_image(name) for name in hidden)
    if folders or hidden:
        skipped = folders.union(hidden)
        files = [name for name in names if name not in skipped]
    else:
        files = names
    # Without a dot the end is the last letter, and no image's.
    ends = [name[name.rfind(".") :] for name in files]
    image_ends = frozenset(end for end in set(ends) if end.lower() in IMAGE_EXTENSIONS)
    folder.images = [name for name, end in zip(files, ends, strict=True) if end in image_ends]
    folder.others = [name for name, end in zip(files, ends, strict=True) if end not in image_ends]
    listing.folders.append(folder)
    return [name for name in names if name in folders and name[0] != "."] if folders else []


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        # A link that leads in a circle to itself.
        return False
