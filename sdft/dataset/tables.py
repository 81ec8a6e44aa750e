"""Many items and placements in columns; a record is made when one is asked for.

A million records with their paths take a gigabyte and seconds; a million rows of columns take a
third of it, and stages that need a column or two read nothing else. From outside both tables are
plain sequences of records.

Letters in names: N rows, 2 = (width, height) or (dataset, subset), 4 = (left, top, right, bottom).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar, overload

import numpy as np

from sdft.dataset.object_cache import ObjectCache
from sdft.dataset.objects import ObjectPath, item_path
from sdft.dataset.records import Item, Placement, Size
from sdft.dataset.shards import Shards, shards_of

Record = TypeVar("Record")


class Rows(Sequence[Record]):
    """A sequence whose records are made by `row`."""

    __slots__ = ()

    def row(self, number: int) -> Record:
        raise NotImplementedError

    @overload
    def __getitem__(self, index: int) -> Record: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[Record, ...]: ...

    def __getitem__(self, index: int | slice) -> Record | tuple[Record, ...]:
        if isinstance(index, slice):
            return tuple(self.row(number) for number in range(*index.indices(len(self))))
        number = index + len(self) if index < 0 else index
        if not 0 <= number < len(self):
            raise IndexError(index)
        return self.row(number)

    def __iter__(self) -> Iterator[Record]:
        return map(self.row, range(len(self)))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence):
            return NotImplemented
        return len(self) == len(other) and all(
            one == another for one, another in zip(self, other, strict=True)
        )

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"<{len(self)} rows>"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class ItemTable(Rows[Item]):
    """Items in columns; one entry of each column is one item."""

    keys: list[str]
    paths: list[str]
    captions: list[str]
    sizes_N2: np.ndarray
    places_N2: np.ndarray
    """Dataset and subset."""
    repeats_N: np.ndarray
    file_bytes_N: np.ndarray
    mtimes_ns_N: np.ndarray
    objects: ObjectCache | None = None
    """Through which those of object stores are read."""
    shards: Shards | None = None
    """In which those lie that are no files of their own."""

    @classmethod
    def of(cls, items: Sequence[Item]) -> ItemTable:
        """Return items as a table; a table is returned as it is."""
        if isinstance(items, ItemTable):
            return items
        return cls(
            keys=[item.key for item in items],
            paths=[str(item.path) for item in items],
            captions=[item.caption for item in items],
            sizes_N2=_pairs([item.size for item in items]),
            places_N2=_pairs([(item.dataset, item.subset) for item in items]),
            repeats_N=np.array([item.num_repeats for item in items], dtype=np.int64),
            file_bytes_N=np.array([item.file_bytes for item in items], dtype=np.int64),
            mtimes_ns_N=np.array([item.mtime_ns for item in items], dtype=np.int64),
            objects=next(
                (item.path.cache for item in items if isinstance(item.path, ObjectPath)), None
            ),
            shards=next((found for item in items if (found := shards_of(item.path))), None),
        )

    def __len__(self) -> int:
        return len(self.keys)

    def row(self, number: int) -> Item:
        width, height = self.sizes_N2[number].tolist()
        dataset, subset = self.places_N2[number].tolist()
        state = int(self.file_bytes_N[number]), int(self.mtimes_ns_N[number])
        path = self.shards.path(self.paths[number], state) if self.shards else None
        return Item(
            key=self.keys[number],
            path=path or item_path(self.paths[number], state, self.objects),
            size=(width, height),
            caption=self.captions[number],
            dataset=dataset,
            subset=subset,
            num_repeats=int(self.repeats_N[number]),
            file_bytes=state[0],
            mtime_ns=state[1],
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class PlacementTable(Rows[Placement]):
    """Placements in columns, each with the number of its item."""

    items: ItemTable
    numbers_N: np.ndarray
    buckets_N2: np.ndarray
    resized_N2: np.ndarray
    crops_N4: np.ndarray

    @classmethod
    def of(cls, placements: Sequence[Placement]) -> PlacementTable:
        """Return placements as a table; a table is returned as it is."""
        if isinstance(placements, PlacementTable):
            return placements
        return cls(
            items=ItemTable.of([placement.item for placement in placements]),
            numbers_N=np.arange(len(placements)),
            buckets_N2=_pairs([placement.bucket for placement in placements]),
            resized_N2=_pairs([placement.resized for placement in placements]),
            crops_N4=np.array([placement.crop for placement in placements], dtype=np.int64).reshape(
                -1, 4
            ),
        )

    def __len__(self) -> int:
        return len(self.numbers_N)

    def row(self, number: int) -> Placement:
        width, height = self.buckets_N2[number].tolist()
        resized_width, resized_height = self.resized_N2[number].tolist()
        left, top, right, bottom = self.crops_N4[number].tolist()
        return Placement(
            item=self.items.row(int(self.numbers_N[number])),
            bucket=(width, height),
            resized=(resized_width, resized_height),
            crop=(left, top, right, bottom),
        )

    def take(self, numbers: np.ndarray | Sequence[int]) -> PlacementTable:
        """Return some of the rows."""
        rows = np.asarray(numbers, dtype=np.intp)
        return PlacementTable(
            items=self.items,
            numbers_N=self.numbers_N[rows],
            buckets_N2=self.buckets_N2[rows],
            resized_N2=self.resized_N2[rows],
            crops_N4=self.crops_N4[rows],
        )

    @property
    def item_places(self) -> np.ndarray:
        """Return the dataset and subset of each row."""
        places_N2: np.ndarray = self.items.places_N2[self.numbers_N]
        return places_N2

    @property
    def distinct_places(self) -> list[tuple[int, int]]:
        """Return each dataset and subset once, sorted."""
        datasets_N, subsets_N = self.item_places.T
        base = int(subsets_N.max(initial=0)) + 1
        return [divmod(code, base) for code in np.unique(datasets_N * base + subsets_N).tolist()]

    def texts(self, column: list[str]) -> list[str]:
        """Return a column of the items (`items.keys`, ...) in this table's rows."""
        return [column[number] for number in self.numbers_N.tolist()]

    def by_bucket(self) -> dict[tuple[int, Size], np.ndarray]:
        """Return the rows of each (dataset, bucket), buckets sorted, rows in order."""
        if not len(self):
            return {}
        datasets_N = self.item_places[:, 0]
        widths_N, heights_N = self.buckets_N2.T
        order = np.lexsort((heights_N, widths_N, datasets_N))
        sorted_N3 = np.stack([datasets_N, widths_N, heights_N], axis=1)[order]
        starts = np.flatnonzero(np.any(np.diff(sorted_N3, axis=0), axis=1)) + 1
        names = sorted_N3[np.concatenate([[0], starts])].tolist()
        rows = np.split(order, starts)
        return {
            (dataset, (width, height)): part
            for (dataset, width, height), part in zip(names, rows, strict=True)
        }

    def crop_shares(self) -> np.ndarray:
        """Return how much of each resized image's area is cut off, 0 .. 1. Shape: [N]."""
        left_N, top_N, right_N, bottom_N = self.crops_N4.T
        kept_N = (right_N - left_N) * (bottom_N - top_N)
        shares_N: np.ndarray = 1 - kept_N / (self.resized_N2[:, 0] * self.resized_N2[:, 1])
        return shares_N


def _pairs(pairs: list[tuple[int, int]]) -> np.ndarray:
    return np.array(pairs, dtype=np.int64).reshape(-1, 2)
