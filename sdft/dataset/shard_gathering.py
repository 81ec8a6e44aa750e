"""Makes a listing of tar shards as if each were a folder, with the webdataset naming convention.

In: the listing of a folder that holds shards. Out: a listing of their members, what is wrong with
them, and the Source that reads them.

A sample is what has one name up to the first dot: `1.jpg`, `1.txt`, `1.json`, `1.seg.png`. An
item's key is its member's name, as if all shards were unpacked into the folder; where two shards
have one name, every key begins with its shard's name.
"""

from __future__ import annotations

import os
import posixpath
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, cast

from sdft.dataset.caption_files import IN_SHARDS
from sdft.dataset.listing import Folder, Listing, extension_of, is_image
from sdft.dataset.object_cache import ObjectCache
from sdft.dataset.objects import ObjectFiles
from sdft.dataset.records import WordRules
from sdft.dataset.remembered import is_settled
from sdft.dataset.shard_index import ShardIndex, index_of, keep, kept, kept_file, plain_name
from sdft.dataset.shards import (
    LocalShard,
    RemoteShard,
    Shard,
    ShardBytes,
    ShardFiles,
    Shards,
    Streamed,
)
from sdft.dataset.sources import LOCAL, State
from sdft.dataset.tar_members import TarMember, tar_members
from sdft.errors import DataError, EnvironmentFault, Problem
from sdft.events import Emit, StageFinished, StageProgress, StageStarted, ignore
from sdft.units import format_bytes
from sdft.urls import UrlPath, as_path

STAGE = "shards"
SHARDS_AT_ONCE = 8
SUFFIX = ".tar"
PACKED = (".tgz", ".gz", ".bz2", ".xz", ".zst")


@dataclass(slots=True)
class ShardListing:
    """What the shards of one folder hold."""

    listing: Listing
    source: ShardFiles
    left_out: list[tuple[Path, str]] = field(default_factory=list)
    """Images that cannot be used, and why."""
    problems: list[Problem] = field(default_factory=list)
    notices: list[Problem] = field(default_factory=list)


def shard_names(listing: Listing) -> list[tuple[Folder, str]]:
    """Return the shards of a listing, each with its folder."""
    return [
        (folder, name)
        for folder in listing.folders
        for name in folder.others
        if extension_of(name) == SUFFIX
    ]


def packed_names(listing: Listing) -> list[str]:
    """Return names of compressed shards, in which nothing can be read alone."""
    names = (name.lower() for folder in listing.folders for name in folder.others)
    return [
        name
        for name in names
        if name.endswith(PACKED) and (name.endswith(".tgz") or ".tar." in name)
    ]


@dataclass(slots=True)
class ShardReader:
    """Indexes shards; one for all subsets of an index."""

    folder: Path | None
    """Where the indexes of shards are kept; none keeps none."""
    cache: ObjectCache | None
    """Where members of shards in object stores are kept."""
    emit: Emit = ignore
    shards: Shards = field(default_factory=Shards)
    """All that were read."""

    def listed(
        self,
        listing: Listing,
        found: Sequence[tuple[Folder, str]],
        *,
        objects: ObjectFiles | None,
        rules: WordRules,
        caption_extension: str,
    ) -> ShardListing:
        """Return the listing of all members; `objects` is where the shards are, or none here."""
        source = ShardFiles(self.shards, rules)
        result = ShardListing(Listing(root=listing.root, folders=[]), source)
        paths = [_text(folder.path, name) for folder, name in found]
        if objects is not None and self.cache is not None:
            _weigh(source, sum(objects.state(path)[0] for path in paths), self.cache.max_bytes)
        kinds = (caption_extension, *IN_SHARDS)

        def one(path: str) -> Problem | None:
            try:
                self._add(path, objects, source, kinds)
            except DataError as error:
                what = error.problems[0].what
            except OSError as error:
                what = f"it cannot be read ({error.strerror or type(error).__name__})"
            else:
                return None
            return Problem(
                f"a tar shard that cannot be used: {what}",
                path,
                "make it anew, or take it out of the folder",
                "bad_shard",
                {"reason": what},
            )

        started_s = time.monotonic()
        self.emit(StageStarted(stage=STAGE, total=len(paths), unit="shards"))
        with ThreadPoolExecutor(SHARDS_AT_ONCE, thread_name_prefix=STAGE) as workers:
            for number, problem in enumerate(workers.map(one, paths), start=1):
                result.problems += [problem] if problem else []
                self.emit(StageProgress(stage=STAGE, done=number))
        duration_s = time.monotonic() - started_s
        self.emit(StageFinished(stage=STAGE, done=len(paths), duration_s=duration_s))
        if not result.problems:
            _list_members(
                result,
                [
                    (folder.prefix, path, self.shards.by_path[path])
                    for (folder, _), path in zip(found, paths, strict=True)
                ],
            )
        return result

    def _add(
        self, path: str, objects: ObjectFiles | None, source: ShardFiles, kinds: Sequence[str]
    ) -> None:
        """Index a shard, or take over what is known of it.

        Raises: DataError, OSError.
        """
        state = LOCAL.state(path) if objects is None else objects.state(path)
        known = self.shards.by_path.get(path)
        if known is not None and known.state == state:
            return
        file = None if self.folder is None else kept_file(self.folder, path)
        index = None if file is None else kept(file, state)
        is_new = index is None
        content: ShardBytes
        if objects is None:
            content, cache = LocalShard(path, state), None
            index = index or _index_of_file(path, state)
        else:
            content, cache = RemoteShard(path), self.cache
            assert cache is not None, "what is read of object stores is kept somewhere"
            index = index or index_of(_kept_members(path, state, cache, source, kinds))
        # One written just now may change again under the same time.
        if is_new and file is not None and is_settled(state[1]):
            try:
                keep(file, state, index)
            except EnvironmentFault as error:
                source.note(f"the index of a shard cannot be kept: {error.problems[0].what}")
        self.shards.by_path[path] = Shard(state, index, content, cache)


def _text(folder: Path, name: str) -> str:
    return f"{folder}/{name}" if isinstance(folder, UrlPath) else str(folder / name)


def _weigh(source: ShardFiles, total_bytes: int, max_bytes: int) -> None:
    source.takes_all = total_bytes <= max_bytes
    if not source.takes_all:
        source.note(
            f"{format_bytes(total_bytes)} of shards are more than the {format_bytes(max_bytes)}"
            " that are kept on this machine: some images are read more than once (object_cache_gb)"
        )


def _index_of_file(path: str, state: State) -> ShardIndex:
    with open(path, "rb") as file:
        return index_of(tar_members(file, state[0]))


def _kept_members(
    path: str, state: State, cache: ObjectCache, source: ShardFiles, kinds: Sequence[str]
) -> Iterator[TarMember]:
    """Give a remote shard's members; where all fit, what will be read is kept as it comes by."""
    file = cast(BinaryIO, Streamed(RemoteShard(path), state[0], source.note))
    for member in tar_members(file, state[0]):
        name = plain_name(member.name)
        is_wanted = is_image(name) or extension_of(posixpath.basename(name)) in kinds
        if source.takes_all and is_wanted and not member.why_not:
            file.seek(member.start)
            content = file.read(member.num_bytes)
            cache.put(f"{path}/{name}", (member.num_bytes, state[1]), content)
        yield member


def _list_members(result: ShardListing, shards: Sequence[tuple[str, str, Shard]]) -> None:
    """Fill the listing with members of shards, each with the prefix of its folder and its path."""
    keys = Counter(
        prefix + name for prefix, _, shard in shards for name in shard.index.names if is_image(name)
    )
    twice = [key for key, count in keys.items() if count > 1]
    if twice:
        result.notices.append(
            Problem(
                f"{len(twice)} names of images stand in several shards, so that every key begins"
                f" with its shard's name: {twice[0]}",
                str(result.listing.root),
            )
        )
    beside: list[str] = []
    unusable: list[str] = []
    for prefix, path, shard in shards:
        own = f"{prefix}{posixpath.basename(path.replace(os.sep, '/'))}/" if twice else prefix
        for folder in _folders(path, own, shard.index.names, result.listing):
            beside += [folder.prefix + name for name in _companions(folder)]
            result.listing.folders.append(folder)
        for name, reason in shard.index.left_out:
            if is_image(name):
                result.left_out.append((as_path(f"{path}/{name}"), reason))
            else:
                unusable.append(f"{name} ({reason})")
    where = str(result.listing.root)
    if beside:
        what = f"{len(beside)} members beside their sample's image are not read: {beside[0]}"
        result.notices.append(Problem(what, where))
    if unusable:
        what = f"{len(unusable)} members that are no images are left out: {unusable[0]}"
        result.notices.append(Problem(what, where))


def _folders(path: str, prefix: str, names: Sequence[str], listing: Listing) -> list[Folder]:
    """Return the folders inside a shard; what is hidden is counted."""
    folders: dict[str, Folder] = {}
    for name in names:
        place, _, base = name.rpartition("/")
        if base.startswith(".") or place.startswith(".") or "/." in place:
            listing.num_hidden += is_image(base)
            continue
        folder = folders.get(place)
        if folder is None:
            below = f"{prefix}{place}/" if place else prefix
            folder = folders[place] = Folder(as_path(path) / place, below)
        (folder.images if is_image(base) else folder.others).append(base)
    return list(folders.values())


def _companions(folder: Folder) -> list[str]:
    """Take from a folder the pictures beside a sample's image, such as `1.seg.png` beside `1.jpg`.

    Without such an image they are ones with dots in their names.
    """
    several = [name for name in folder.images if name.count(".") > 1]
    samples = {name.partition(".")[0] for name in folder.images if name.count(".") == 1}
    left = {name for name in several if name.partition(".")[0] in samples}
    folder.images = [name for name in folder.images if name not in left]
    folder.others += sorted(left)
    return sorted(left)
