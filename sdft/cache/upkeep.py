"""Is a store whole, and what in it does nobody need any more?

In: a store, keys to keep. Out: what was found, what goes or would go.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sdft.cache.manifest import Snapshot, read_snapshot
from sdft.cache.shard import NUMPY_OF, DamagedShard, Entry, read_shard
from sdft.cache.store import SHARDS_NAME, TensorStore
from sdft.cache.writer import SHARD_BYTES, shard_files
from sdft.cache.writing import writer_of
from sdft.errors import Problem
from sdft.events import Emit, StageFinished, StageProgress, StageStarted, ignore

SMALL_SHARD_BYTES = SHARD_BYTES // 4
"""Shards below this are brought together when a store is pruned."""

VERIFY_STAGE = "verify"


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreReport:
    """What every byte of a store was found to be."""

    shards: int
    entries: int
    size_bytes: int
    problems: tuple[Problem, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PruneResult:
    """What a pruning took away, or would take away."""

    entries: int
    """Entries that go."""
    kept: int
    freed_bytes: int
    """Of the tensors that go."""
    rewritten_bytes: int
    """Of the tensors that are copied into new shards because their neighbours go."""
    shards: int
    """Shards that go, those included whose remaining tensors are copied."""
    done: bool
    """False for a mere look."""


def find_stores(folder: Path) -> tuple[TensorStore, ...]:
    """Return the stores that a cache folder is or holds, by name."""
    if not folder.is_dir():
        return ()
    candidates = [folder, *sorted(path for path in folder.iterdir() if path.is_dir())]
    return tuple(TensorStore(path) for path in candidates if (path / SHARDS_NAME).is_dir())


def verify_store(store: TensorStore, *, emit: Emit = ignore) -> StoreReport:
    """Read every byte of every shard and compare it with the manifest. Changes nothing.

    Raises: DataError where the manifest cannot be read.
    """
    snapshot = read_snapshot(store.manifest_path)
    rows_of_shard = _rows_by_shard(snapshot)
    problems: list[Problem] = []
    size_bytes = 0
    started_s = time.monotonic()
    emit(StageStarted(stage=VERIFY_STAGE, total=len(snapshot.shards), unit="shard"))
    for number, shard in enumerate(snapshot.shards.values(), start=1):
        path = store.shards_folder / shard.name
        try:
            entries = read_shard(path)
        except FileNotFoundError:
            problems.append(Problem("a cache file is missing", str(path), _ANEW))
        except DamagedShard as damage:
            problems.extend(damage.problems)
        else:
            size_bytes += path.stat().st_size
            rows = rows_of_shard.get(shard.id, np.empty(0, dtype=np.intp))
            if not _agrees(snapshot, rows, entries):
                problems.append(Problem("the manifest does not fit this file", str(path), _REMADE))
        emit(StageProgress(stage=VERIFY_STAGE, done=number))
    duration_s = time.monotonic() - started_s
    emit(StageFinished(stage=VERIFY_STAGE, done=len(snapshot.shards), duration_s=duration_s))
    known = {shard.name for shard in snapshot.shards.values()}
    strangers = shard_files(store.shards_folder) if store.shards_folder.is_dir() else []
    problems.extend(
        Problem("a killed writer left this file", str(path), "the next cache-latents settles it")
        for path in strangers
        if path.name not in known
    )
    return StoreReport(
        shards=len(snapshot.shards),
        entries=len(snapshot.keys),
        size_bytes=size_bytes,
        problems=tuple(problems),
    )


_ANEW = "run cache-latents again: what it held is made anew"
_REMADE = "remove the manifest: it is made again from the shards"


def prune(
    store: TensorStore, keep_keys: Sequence[str], *, dry_run: bool, emit: Emit = ignore
) -> PruneResult:
    """Take away every entry whose key is not in `keep_keys`, or only say what would go.

    What stays in a shard that loses entries, or in a small one, is copied into a new shard; old
    shards go when the new are whole. A run that reads the store meanwhile finds its way.

    Raises: UserError where another process writes the store.
    """
    if dry_run:
        return _foreseen(store.snapshot(), keep_keys, done=False)
    with writer_of(store, emit=emit) as writer:
        snapshot = store.snapshot()
        result = _foreseen(snapshot, keep_keys, done=True)
        keep = _kept(snapshot, keep_keys)
        going = _going_shards(snapshot, keep)
        for shard_id in going:
            shard = snapshot.shards[shard_id]
            mapped = store.whole(shard)
            for row in np.flatnonzero(keep & (snapshot.shard_ids == shard_id)):
                writer.add_encoded(*_encoded(snapshot, int(row), mapped))
            del mapped
        writer.finish()
        writer.drop(going)
    return result


def _foreseen(snapshot: Snapshot, keep_keys: Sequence[str], *, done: bool) -> PruneResult:
    keep = _kept(snapshot, keep_keys)
    going = _going_shards(snapshot, keep)
    num_bytes = _entry_bytes(snapshot)
    in_going = np.isin(snapshot.shard_ids, going)
    return PruneResult(
        entries=int((~keep).sum()),
        kept=int(keep.sum()),
        freed_bytes=int(num_bytes[~keep].sum()),
        rewritten_bytes=int(num_bytes[keep & in_going].sum()),
        shards=len(going),
        done=done,
    )


def _kept(snapshot: Snapshot, keep_keys: Sequence[str]) -> np.ndarray:
    keep = np.zeros(len(snapshot.keys), dtype=bool)
    rows = snapshot.rows_of(keep_keys)
    keep[rows[rows >= 0]] = True
    return keep


def _going_shards(snapshot: Snapshot, keep: np.ndarray) -> list[int]:
    """Return the shards that lose something, and the small ones where there are several."""
    losing = {int(shard_id) for shard_id in np.unique(snapshot.shard_ids[~keep])}
    empty = set(snapshot.shards) - {int(shard_id) for shard_id in np.unique(snapshot.shard_ids)}
    small = {shard.id for shard in snapshot.shards.values() if shard.size_bytes < SMALL_SHARD_BYTES}
    going = losing | empty
    return sorted(going | small) if len(small | going) > 1 else sorted(going)


def _entry_bytes(snapshot: Snapshot) -> np.ndarray:
    by_form = {
        form_id: int(np.prod(form.shape)) * NUMPY_OF[form.dtype].itemsize
        for form_id, form in snapshot.forms.items()
    }
    table = np.zeros(max(by_form, default=0) + 1, dtype=np.int64)
    for form_id, num_bytes in by_form.items():
        table[form_id] = num_bytes
    entry_bytes: np.ndarray = table[snapshot.form_ids]
    return entry_bytes


def _encoded(snapshot: Snapshot, row: int, mapped: np.ndarray) -> tuple[str, str, np.ndarray]:
    form = snapshot.forms[int(snapshot.form_ids[row])]
    stored = np.ndarray(
        form.shape, dtype=NUMPY_OF[form.dtype], buffer=mapped, offset=int(snapshot.offsets[row])
    )
    return snapshot.key_at(row), form.dtype, stored.copy()


def _rows_by_shard(snapshot: Snapshot) -> dict[int, np.ndarray]:
    if not len(snapshot.keys):
        return {}
    order = np.argsort(snapshot.shard_ids, kind="stable")
    ids, starts = np.unique(snapshot.shard_ids[order], return_index=True)
    parts = np.split(order, starts[1:])
    return {int(shard_id): rows for shard_id, rows in zip(ids, parts, strict=True)}


def _agrees(snapshot: Snapshot, rows: np.ndarray, entries: Sequence[Entry]) -> bool:
    """Tell whether each row's place is where the shard's own table has the key."""
    places = {entry.key: (entry.dtype, entry.shape, entry.offset) for entry in entries}
    for row in rows:
        form = snapshot.forms[int(snapshot.form_ids[row])]
        found = (form.dtype, form.shape, int(snapshot.offsets[row]))
        if places.get(snapshot.key_at(int(row))) != found:
            return False
    return True
