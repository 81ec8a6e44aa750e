"""What lies where in a tar shard, kept so that the next start need not look through it.

In: a shard's members. Out: a ShardIndex, and the file in the cache folder that holds it. It counts
only for the shard in the state (bytes, and time or ETag) that it was made of.
"""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import numpy as np

from sdft.dataset.sources import State
from sdft.dataset.tar_members import TarMember
from sdft.files import stays_within, whole_file

_MAGIC = b"sdft-shard-1\n"
_DIGEST_BYTES = 16
_TEXT = ("utf-8", "surrogateescape")

SEEN_AGAIN = "the name stands again later in the shard, and as in unpacking the last one counts"
LEADS_OUT = "a name that leads out of the shard, or that is no name (.., /, \\, an empty part)"


@dataclass(frozen=True, slots=True, eq=False)
class ShardIndex:
    """The files of one shard; N of them, sorted by name."""

    names: list[str]
    numbers_N3: np.ndarray
    """int64: begin of the content, its bytes, the CRC-32 of the header before it."""
    left_out: list[tuple[str, str]]
    """Members that cannot be used, and why."""

    def row(self, name: str) -> int | None:
        """Return the number of a member, or None where there is no such."""
        number = bisect_left(self.names, name)
        return number if self.names[number : number + 1] == [name] else None


def index_of(members: Iterable[TarMember]) -> ShardIndex:
    """Return the index of some members.

    Raises: what reading them raises.
    """
    rows: dict[str, tuple[int, int, int]] = {}
    left_out: list[tuple[str, str]] = []
    for member in members:
        name = plain_name(member.name)
        why_not = member.why_not or ("" if stays_within(name) else LEADS_OUT)
        if why_not:
            left_out.append((name, why_not))
            continue
        if name in rows:
            left_out.append((name, SEEN_AGAIN))
        rows[name] = (member.start, member.num_bytes, member.header_check)
    names = sorted(rows)
    numbers = np.array([rows[name] for name in names], dtype=np.int64)
    return ShardIndex(names, numbers.reshape(-1, 3), left_out)


def plain_name(name: str) -> str:
    """Return a member's name without the `./` that tar puts before what it packs from `.`."""
    while name.startswith("./"):
        name = name[2:]
    return name


def kept_file(folder: Path, shard: str) -> Path:
    """Return the file that holds the index of a shard."""
    return folder / f"{blake2b(shard.encode(*_TEXT), digest_size=20).hexdigest()}.index"


def keep(path: Path, state: State, index: ShardIndex) -> None:
    """Write an index, whole or not at all.

    Raises: EnvironmentFault.
    """
    names = "\0".join(index.names).encode(*_TEXT)
    head = {"state": state, "members": len(index.names), "names_bytes": len(names)}
    head["left_out"] = index.left_out
    # ASCII with escapes also holds names that are no UTF-8.
    body = b"".join(
        [_MAGIC, json.dumps(head).encode("ascii"), b"\n", names, index.numbers_N3.tobytes()]
    )
    with whole_file(path) as part:
        part.write_bytes(body + blake2b(body, digest_size=_DIGEST_BYTES).digest())


def kept(path: Path, state: State) -> ShardIndex | None:
    """Return the index that was kept of a shard in this state; None also where it is damaged."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    body, digest = content[:-_DIGEST_BYTES], content[-_DIGEST_BYTES:]
    if not body.startswith(_MAGIC) or blake2b(body, digest_size=_DIGEST_BYTES).digest() != digest:
        return None
    line, _, rest = body[len(_MAGIC) :].partition(b"\n")
    head = json.loads(line)
    if tuple(head["state"]) != state:
        return None
    names_bytes, num_members = head["names_bytes"], head["members"]
    names = rest[:names_bytes].decode(*_TEXT).split("\0") if num_members else []
    numbers = np.frombuffer(rest[names_bytes:], dtype=np.int64)
    left_out = [(name, reason) for name, reason in head["left_out"]]
    return ShardIndex(names, numbers.reshape(num_members, 3), left_out)
