"""Says which image files a subset has and where the caption of each lies; opens no image.

In: a SubsetSpec. Out: Candidates, and problems and notices in words.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from sdft.dataset.candidates import Candidates
from sdft.dataset.caption_files import CaptionFinder, by_convention
from sdft.dataset.listing import Folder, Listing, list_folder
from sdft.dataset.matching import Matches, match_keys
from sdft.dataset.metadata import Metadata, read_metadata
from sdft.dataset.object_cache import ObjectCache
from sdft.dataset.objects import ObjectFiles, object_path
from sdft.dataset.records import Rejected, SubsetSpec
from sdft.dataset.shard_gathering import ShardReader, packed_names, shard_names
from sdft.errors import DataError, Problem
from sdft.urls import UrlPath

NUM_EXAMPLES = 3
"""So many names stand in a message; the rest is a number."""


@dataclass(slots=True)
class Gathered:
    """What one subset has."""

    spec: SubsetSpec
    dataset: int
    subset: int
    candidates: Candidates = field(default_factory=Candidates)
    rejected: list[Rejected] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    notices: list[Problem] = field(default_factory=list)
    in_shards: bool = False
    """Whether the images lie in tar shards."""
    finders: list[CaptionFinder] = field(default_factory=list)
    """Of each folder, where captions lie in files."""

    @property
    def place(self) -> str:
        return str(self.spec.metadata_file or self.spec.image_dir)

    def caption_kinds(self) -> Counter[str]:
        """Count the extensions of files that lie beside the images and have their stems."""
        return sum((finder.kinds() for finder in self.finders), Counter())

    def forget(self) -> None:
        """Let go of the names; of a million files they are as large as what was read of them."""
        self.candidates = Candidates()
        self.finders.clear()


def gather(spec: SubsetSpec, dataset: int, subset: int, reader: ShardReader) -> Gathered:
    """Return a subset's image files; what stops the whole job is in `problems`.

    `reader` has a cache where there are files of object stores.
    """
    assert spec.image_dir or spec.metadata_file, "a subset has a folder or a metadata file"
    gathered = Gathered(spec, dataset, subset)
    root = spec.image_dir or spec.metadata_file.parent  # type: ignore[union-attr]
    try:
        listing = _listed(gathered, root, reader)
    except OSError as error:
        gathered.problems.append(_cannot_list(root, error))
        return gathered
    try:
        metadata_file = _readable(spec.metadata_file, reader.cache)
    except OSError as error:
        gathered.problems.append(_cannot_read(str(spec.metadata_file), error))
        return gathered
    gathered.notices += _listing_notices(listing)
    if gathered.problems:
        return gathered
    if metadata_file:
        _from_metadata(gathered, metadata_file, listing)
    else:
        _from_folder(gathered, listing)
    gathered.candidates.sort()
    return gathered


def _listed(gathered: Gathered, root: Path, reader: ShardReader) -> Listing:
    recursive = gathered.spec.recursive
    objects = None
    if isinstance(root, UrlPath):
        assert reader.cache is not None, "images of object stores are kept somewhere"
        gathered.candidates.source = objects = ObjectFiles(root, reader.cache)
        listing = objects.listed(recursive=recursive)
    else:
        listing = list_folder(root, recursive=recursive)
    shards = shard_names(listing) if gathered.spec.image_dir else []
    if not shards:
        return listing
    if listing.num_images():
        what = f"{plural(len(shards), '.tar file')} beside images not read: {shards[0][1]}"
        fix = "give shards a folder of their own"
        gathered.notices.append(Problem(what, str(root), fix))
        return listing
    return _shards_listed(gathered, listing, shards, objects, reader)


def _shards_listed(
    gathered: Gathered,
    listing: Listing,
    shards: list[tuple[Folder, str]],
    objects: ObjectFiles | None,
    reader: ShardReader,
) -> Listing:
    """Return the listing of what lies in tar shards, which `gathered` then reads from."""
    spec = gathered.spec
    found = reader.listed(
        listing,
        shards,
        objects=objects,
        rules=spec.words,
        caption_extension=with_dot(spec.caption_extension),
    )
    if objects is not None:
        gathered.notices += [Problem(note, gathered.place) for note in objects.notes()]
    gathered.candidates.source = found.source
    gathered.in_shards = True
    gathered.rejected += [_rejected(gathered, path, reason) for path, reason in found.left_out]
    gathered.problems += found.problems
    gathered.notices += found.notices
    return found.listing


def _readable(metadata_file: Path | None, objects: ObjectCache | None) -> Path | None:
    """Return a metadata file's path, of an object store one that can be read.

    Raises: OSError where there is no such object.
    """
    if not isinstance(metadata_file, UrlPath):
        return metadata_file
    assert objects is not None, "what is read of object stores is kept somewhere"
    return object_path(metadata_file, objects)


def examples(names: Sequence[object]) -> str:
    """Return the first names, and how many more there are."""
    shown = ", ".join(str(name) for name in names[:NUM_EXAMPLES])
    left = len(names) - NUM_EXAMPLES
    return f"{shown} and {left} more" if left > 0 else shown


def plural(count: int, one: str, many: str = "") -> str:
    return f"{count} {one}" if count == 1 else f"{count} {many or one + 's'}"


def with_dot(extension: str) -> str:
    """Return a caption extension with its dot, which some people leave out."""
    return extension if extension.startswith(".") or not extension else f".{extension}"


def _from_folder(gathered: Gathered, listing: Listing) -> None:
    if listing.num_images() == 0:
        gathered.problems.append(_no_images(listing))
        return
    extension = with_dot(gathered.spec.caption_extension)
    candidates = gathered.candidates
    otherwise: Counter[str] = Counter()
    for folder in listing.folders:
        finder = CaptionFinder(folder)
        # Texts: a million Paths would take seconds to make.
        place = f"{folder.path}/" if isinstance(folder.path, UrlPath) else _inside(folder.path)
        caption_names = finder.find_all(extension)
        if gathered.in_shards:
            caption_names = by_convention(finder, caption_names, otherwise)
        candidates.keys += [folder.prefix + name for name in folder.images]
        candidates.paths += [place + name for name in folder.images]
        candidates.caption_names += caption_names
        candidates.caption_files += [name and place + name for name in caption_names]
        gathered.finders.append(finder)
    for other, count in (+otherwise).items():
        what = f"{plural(count, 'caption')} of shards read from {other}, as there is no {extension}"
        gathered.notices.append(Problem(what, gathered.place))


def _inside(folder: Path) -> str:
    return os.path.join(folder, "")


def _from_metadata(gathered: Gathered, metadata_file: Path, listing: Listing) -> None:
    where = str(metadata_file)
    try:
        metadata = read_metadata(metadata_file, gathered.spec.words)
    except DataError as error:
        gathered.problems += error.problems
        return
    except OSError as error:
        gathered.problems.append(_cannot_read(where, error))
        return
    matches = match_keys(metadata.captions, listing, metadata_file)
    none = [""] * len(matches.found)
    gathered.candidates = Candidates(
        keys=[item_key for item_key, _ in matches.found.values()],
        paths=[str(path) for _, path in matches.found.values()],
        caption_names=none,
        caption_files=list(none),
        captions=[metadata.captions[key] for key in matches.found],
        sizes_N2=_sizes(metadata, matches) if metadata.sizes else None,
        source=gathered.candidates.source,
    )
    for key, names in matches.ambiguous.items():
        shown = examples([name for name, _ in names])
        reason = f'the metadata key "{key}" fits {shown}; give keys with their extension'
        gathered.rejected += [_rejected(gathered, path, reason) for _, path in names]
    if not matches.found:
        gathered.problems.append(_nothing_matches(matches, listing, where))
        return
    gathered.notices += _match_notices(matches, metadata.repeated, where)
    if gathered.spec.image_dir:
        gathered.notices += _without_key(gathered, matches, listing, where)


def _sizes(metadata: Metadata, matches: Matches) -> np.ndarray:
    """Return the sizes that the metadata gives, 0 where it gives none. Shape: [N, 2]."""
    sizes = [metadata.sizes.get(key, (0, 0)) for key in matches.found]
    return np.array(sizes, dtype=np.int64).reshape(-1, 2)


def _rejected(gathered: Gathered, path: Path, reason: str) -> Rejected:
    return Rejected(path=path, reason=reason, dataset=gathered.dataset, subset=gathered.subset)


def _match_notices(matches: Matches, repeated: Sequence[str], where: str) -> Iterator[Problem]:
    if matches.unfound:
        count = plural(len(matches.unfound), "key")
        yield Problem(
            f"{count} of the metadata without an image: {examples(matches.unfound)}", where
        )
    if matches.climbing:
        yield Problem(
            f"{plural(len(matches.climbing), 'key')} with .. not followed: "
            f"{examples(matches.climbing)}",
            where,
            "write such paths in full",
        )
    if matches.moved:
        yield Problem(
            f"{plural(len(matches.moved), 'key')} with a path that is not there, found by the last "
            f"part: {examples(matches.moved)}",
            where,
        )
    if matches.same_image:
        yield Problem(
            f"{plural(len(matches.same_image), 'key')} left out, since an earlier key names the "
            f"same image: {examples(matches.same_image)}",
            where,
        )
    if repeated:
        yield Problem(
            f"{plural(len(repeated), 'key')} given more than once, the last one counts: "
            f"{examples(repeated)}",
            where,
        )


def _without_key(
    gathered: Gathered, matches: Matches, listing: Listing, where: str
) -> Iterator[Problem]:
    named = {item_key for item_key, _ in matches.found.values()}
    named |= {name for names in matches.ambiguous.values() for name, _ in names}
    left = [key for key in listing.image_keys() if key not in named]
    if left:
        yield Problem(
            f"{plural(len(left), 'image')} of {gathered.spec.image_dir} without a key in the "
            f"metadata, not used: {examples(left)}",
            where,
        )


def _nothing_matches(matches: Matches, listing: Listing, where: str) -> Problem:
    keys = [*matches.unfound, *matches.climbing, *matches.ambiguous]
    if not keys:
        return Problem("the metadata file names no images", where)
    there = list(listing.image_keys())
    seen = f"images there: {examples(there)}" if there else "there are no images"
    return Problem(
        f"none of the {plural(len(keys), 'key')} fits an image in {listing.root}; "
        f"keys: {examples(keys)}; {seen}",
        where,
        "set image_dir to the folder of the images, and recursive = true if they lie in subfolders",
    )


def _cannot_read(metadata_file: str, error: OSError) -> Problem:
    reason = error.strerror or type(error).__name__
    return Problem(f"the metadata file cannot be read ({reason})", metadata_file)


def _cannot_list(root: Path, error: OSError) -> Problem:
    if isinstance(error, FileNotFoundError):
        fix = _nearest_folder(root)
        return Problem("there is no such folder", str(root), fix, "no_such_folder")
    if isinstance(error, NotADirectoryError):
        fix = "give the folder it lies in"
        return Problem("this is a file, not a folder", str(root), fix, "file_not_folder")
    reason = error.strerror or type(error).__name__
    return Problem(
        f"the folder cannot be read ({reason})",
        str(root),
        key="folder_unreadable",
        values={"reason": reason},
    )


def _nearest_folder(root: Path) -> str:
    """Say how far the path exists, which shows where the mistake is."""
    if any(character in str(root) for character in "\t\n\r"):
        return "the path holds a tab or a line end: write Windows paths in '...' or with /"
    parent = next((parent for parent in root.absolute().parents if parent.is_dir()), None)
    return f"{parent} is there; what comes after it is not" if parent else ""


def _no_images(listing: Listing) -> Problem:
    if packed := packed_names(listing):
        return Problem(
            f"no images but {plural(len(packed), 'compressed archive')}, such as {packed[0]}",
            str(listing.root),
            "unpack it to .tar or to a folder: in a compressed one nothing can be read alone",
            "compressed_shards",
            {"count": len(packed), "example": packed[0]},
        )
    others = listing.other_extensions()
    found = ", ".join(f"{kind} {count}" for kind, count in others.most_common(8)) or "no files"
    what = f"the folder holds no images (found: {found})"
    for subfolder in listing.subfolders_left:
        try:
            below = list_folder(subfolder, recursive=True).num_images()
        except OSError:
            continue
        if below:
            return Problem(
                f"{what}, but its subfolder {subfolder.name} holds {plural(below, 'image')}",
                str(listing.root),
                "set recursive = true, or give the subfolder",
                "images_in_subfolder",
                {"subfolder": subfolder.name, "below": below},
            )
    return Problem(
        what,
        str(listing.root),
        "images end in .png .jpg .jpeg .webp .bmp .gif .tif .tiff .avif",
        "no_images_in_folder",
        {"found": found},
    )


def _listing_notices(listing: Listing) -> Iterator[Problem]:
    where = str(listing.root)
    if listing.num_hidden:
        count = plural(listing.num_hidden, "image or folder", "images or folders")
        yield Problem(f"{count} passed over, being hidden (the name begins with a dot)", where)
    if listing.seen_twice:
        yield Problem(
            f"{plural(len(listing.seen_twice), 'folder')} reached a second time by a link, read "
            f"once: {examples(listing.seen_twice)}",
            where,
        )
    for path, reason in listing.unreadable:
        yield Problem(f"a folder cannot be read ({reason}); its images are not used", str(path))
    if listing.subfolders_left and listing.num_images():
        yield Problem(
            f"{plural(len(listing.subfolders_left), 'subfolder')} not looked into: "
            f"{examples([path.name for path in listing.subfolders_left])}",
            where,
            "set recursive = true if their images belong to it",
        )
