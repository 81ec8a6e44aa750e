"""The images in a folder's tar shards, as a command line that names the folder means them.

In: the listing of a folder of this machine. Out: paths of members, with the keys that training has
for them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from sdft.dataset.listing import Listing
from sdft.dataset.records import WordRules
from sdft.dataset.shard_gathering import ShardReader, shard_names
from sdft.errors import DataError, Problem


def images_in_shards(
    listing: Listing, note: Callable[[Problem], None]
) -> Iterator[tuple[str, Path]]:
    """Give each image's key and path; none where the folder has images of its own, or no shards.

    `note` hears of what is left out.

    Raises: DataError naming shards that cannot be used; OSError.
    """
    shards = shard_names(listing)
    if not shards:
        return
    if listing.num_images():
        note(Problem("tar shards beside images are not read", str(listing.root)))
        return
    reader = ShardReader(folder=None, cache=None)
    found = reader.listed(
        listing, shards, objects=None, rules=WordRules(), caption_extension=".caption"
    )
    if found.problems:
        raise DataError(problems=found.problems)
    for problem in found.notices:
        note(problem)
    for path, reason in found.left_out:
        note(Problem(reason, str(path)))
    for folder in found.listing.folders:
        for name in folder.images:
            member = reader.shards.member(os.path.join(folder.path, name))
            assert member is not None, "the listing is of these shards"
            yield folder.prefix + name, member
