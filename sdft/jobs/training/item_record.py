"""What a run's images and words were, so that a later difference can be named.

In: the data of a run. Out: `<run>/items/<digest>.jsonl.gz`, one short line an item, written once.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path

from sdft.collector import no_collections
from sdft.errors import DataError
from sdft.files import write_bytes
from sdft.jobs.training.data import TrainingData
from sdft.train.background import SaveJob

quoted = json.encoder.encode_basestring_ascii
"""A text as JSON, in ASCII."""

NUM_NAMED = 3
MAX_RECORD_BYTES = 1 << 30
"""Unpacked; some five million items."""

Items = dict[str, tuple[str, str, int]]
"""Name of an item to the digests of its words and of its latents, and its repeats."""


def items_job(folder: Path, data: TrainingData) -> SaveJob:
    """Return the writing of the record as a job of the background writer."""
    return SaveJob(
        name="items",
        content=data,
        num_bytes=0,
        copied=lambda content: content,
        write=lambda content: write_items(folder, content),
    )


def write_items(folder: Path, data: TrainingData) -> None:
    """Write the record of this data, unless it is there."""
    path = _path(folder, data.digest)
    if path.exists():
        return
    with no_collections():
        # What json.dumps gives for such a list, without its price for each of a million.
        lines = [
            f'[{quoted(name)}, "{words}", "{pixels}", {repeats}]'
            for name, (words, pixels, repeats) in items_of(data).items()
        ]
    packed = gzip.compress("\n".join(lines).encode("ascii"), compresslevel=1, mtime=0)
    write_bytes(path, packed)


def items_of(data: TrainingData) -> Items:
    """Return short facts about each item. Column by column: a million take seconds as it is."""
    items = data.items
    table, keys = items.table, items.keys
    # The text of a rule as it stands in the text of a tuple: the same for all items of a subset.
    rules = {
        place: (repr(repr(one.words)), repr(repr(one.picture)))
        for place, one in items.rules.items()
    }
    columns = (
        table.texts(table.items.keys),
        table.texts(table.items.captions),
        zip(*table.item_places.T.tolist(), strict=True),
        zip(*table.buckets_N2.T.tolist(), strict=True),
        table.items.repeats_N[table.numbers_N].tolist(),
        table.items.file_bytes_N[table.numbers_N].tolist(),
        keys.plain.texts(),
        keys.flipped.texts(),
        keys.live_N.tolist(),
        items.masks,
    )
    found: Items = {}
    for name, caption, place, bucket, repeats, num_bytes, plain, flipped, live, mask in zip(
        *columns, strict=True
    ):
        words_rules, picture_rules = rules[place]
        shown = f"{num_bytes}, {picture_rules}" if live else f"{plain!r}, {flipped!r}"
        words = _short(f"({caption!r}, {words_rules})")
        pixels = _short(f"({shown}, {mask!r}, {bucket!r})")
        found[f"{place[0]}.{place[1]} {name}"] = (words, pixels, repeats)
    return found


def changes_since(folder: Path, digest: str, data: TrainingData) -> list[str]:
    """Say what differs between recorded data and these; nothing where there is no record."""
    try:
        old = _read(_path(folder, digest))
    except (OSError, ValueError, TypeError, EOFError, zlib.error, DataError):
        return []
    new = items_of(data)
    both = [name for name in old if name in new]
    kinds = {
        "removed": [name for name in old if name not in new],
        "added": [name for name in new if name not in old],
        "other words": [name for name in both if old[name][0] != new[name][0]],
        "other pixels or bucket": [name for name in both if old[name][1] != new[name][1]],
        "other repeats": [name for name in both if old[name][2] != new[name][2]],
    }
    return [f"{kind}: {_named(found)}" for kind, found in kinds.items() if found]


def _read(path: Path) -> Items:
    found: Items = {}
    for line in _lines(path):
        name, words, pixels, repeats = json.loads(line)
        found[str(name)] = (str(words), str(pixels), int(repeats))
    return found


def _lines(path: Path) -> Iterator[str]:
    num_bytes = 0
    with gzip.open(path, "rt", encoding="ascii") as file:
        # A line is short; one without an end would be read whole otherwise.
        while line := file.readline(1 << 20):
            num_bytes += len(line)
            if num_bytes > MAX_RECORD_BYTES:
                raise DataError(what="no record of a run's items: too long", where=str(path))
            yield line


def _named(names: list[str]) -> str:
    shown = ", ".join(name.partition(" ")[2] for name in names[:NUM_NAMED])
    more = f" and {len(names) - NUM_NAMED} more" if len(names) > NUM_NAMED else ""
    return shown + more


def _path(folder: Path, digest: str) -> Path:
    return folder / f"{Path(digest).name}.jsonl.gz"


def _short(text: str) -> str:
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()
