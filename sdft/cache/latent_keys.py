"""Under which keys the latents of placements are stored: one record, or a plan's in columns.

Letters in names: N placements, 16 = the bytes of a key.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sdft.cache.shard import KEY_BYTES
from sdft.dataset.tables import Rows


@dataclass(frozen=True, slots=True, kw_only=True)
class LatentKeys:
    """Where one placement's latents are stored; None where there are none.

    There is no `flipped` without `plain`.
    """

    plain: str | None = None
    flipped: str | None = None
    live: bool = False
    """Nothing is stored: they are made from the pixels on each use."""

    @property
    def usable(self) -> bool:
        """Whether the image can be trained on; else it was rejected."""
        return self.live or self.plain is not None

    @property
    def present(self) -> tuple[str, ...]:
        if self.plain is None:
            return ()
        return (self.plain,) if self.flipped is None else (self.plain, self.flipped)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class KeyColumn:
    """One key of each placement, or none."""

    keys_N16: np.ndarray
    """uint8."""
    present_N: np.ndarray
    """bool; the bytes of a key that is not present mean nothing."""

    @classmethod
    def empty(cls, num_placements: int) -> KeyColumn:
        return cls(
            keys_N16=np.zeros((num_placements, KEY_BYTES), dtype=np.uint8),
            present_N=np.zeros(num_placements, dtype=bool),
        )

    def get(self, number: int) -> str | None:
        return self.keys_N16[number].tobytes().hex() if self.present_N[number] else None

    def put(self, number: int, key: str | None) -> None:
        self.present_N[number] = key is not None
        if key is not None:
            self.keys_N16[number] = np.frombuffer(bytes.fromhex(key), dtype=np.uint8)

    def put_joined(self, rows: np.ndarray, keys: bytes) -> None:
        """Put the keys of some placements, one behind the other."""
        self.keys_N16[rows] = np.frombuffer(keys, dtype=np.uint8).reshape(-1, KEY_BYTES)
        self.present_N[rows] = True

    def take(self, numbers: np.ndarray | Sequence[int]) -> KeyColumn:
        rows = np.asarray(numbers, dtype=np.intp)
        return KeyColumn(keys_N16=self.keys_N16[rows], present_N=self.present_N[rows])

    def texts(self) -> list[str | None]:
        """Return every key as hexadecimal digits, or None."""
        digits, num = self.keys_N16.tobytes().hex(), 2 * KEY_BYTES
        return [
            digits[num * number : num * (number + 1)] if present else None
            for number, present in enumerate(self.present_N.tolist())
        ]

    def joined(self) -> str:
        """Return the hexadecimal digits of the keys that are present, one behind the other."""
        keys_M16: np.ndarray = self.keys_N16[self.present_N]
        return keys_M16.tobytes().hex()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class KeyTable(Rows[LatentKeys]):
    """The keys of many placements; a record is made when one is asked for."""

    plain: KeyColumn
    flipped: KeyColumn
    live_N: np.ndarray

    @classmethod
    def empty(cls, num_placements: int, *, live: bool = False) -> KeyTable:
        """Return a table of placements without keys, all of them live or none."""
        return cls(
            plain=KeyColumn.empty(num_placements),
            flipped=KeyColumn.empty(num_placements),
            live_N=np.full(num_placements, live, dtype=bool),
        )

    @classmethod
    def of(cls, keys: Sequence[LatentKeys]) -> KeyTable:
        """Return keys as a table; a table is returned as it is."""
        if isinstance(keys, KeyTable):
            return keys
        table = cls.empty(len(keys))
        for number, one in enumerate(keys):
            table.put(number, one)
        return table

    @property
    def usable(self) -> np.ndarray:
        """Return which placements can be trained on. Shape: [N] bool."""
        usable_N: np.ndarray = self.live_N | self.plain.present_N
        return usable_N

    def __len__(self) -> int:
        return len(self.live_N)

    def row(self, number: int) -> LatentKeys:
        return LatentKeys(
            plain=self.plain.get(number),
            flipped=self.flipped.get(number),
            live=bool(self.live_N[number]),
        )

    def put(self, number: int, keys: LatentKeys) -> None:
        self.plain.put(number, keys.plain)
        self.flipped.put(number, keys.flipped)
        self.live_N[number] = keys.live

    def take(self, numbers: np.ndarray | Sequence[int]) -> KeyTable:
        """Return some of the rows."""
        return KeyTable(
            plain=self.plain.take(numbers),
            flipped=self.flipped.take(numbers),
            live_N=self.live_N[np.asarray(numbers, dtype=np.intp)],
        )

    def without_flipped(self) -> KeyTable:
        return KeyTable(plain=self.plain, flipped=KeyColumn.empty(len(self)), live_N=self.live_N)

    def spread(self, numbers: np.ndarray | Sequence[int], num_placements: int) -> KeyTable:
        """Return a table in which these rows have the given numbers and all others are live."""
        rows = np.asarray(numbers, dtype=np.intp)
        whole = KeyTable.empty(num_placements, live=True)
        for ours, theirs in ((whole.plain, self.plain), (whole.flipped, self.flipped)):
            ours.keys_N16[rows] = theirs.keys_N16
            ours.present_N[rows] = theirs.present_N
        whole.live_N[rows] = self.live_N
        return whole
