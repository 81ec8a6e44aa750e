"""A store says whether it is whole, and gives back the space that nobody needs."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import numpy as np

from sdft.cache.store import TensorStore
from sdft.cache.upkeep import find_stores, prune, verify_store
from sdft.cache.writer import StoreWriter, shard_files


def key(number: int) -> str:
    return f"{number:032x}"


def values(number: int) -> np.ndarray:
    return np.full((4, 8, 8), number, dtype=np.float32)


def filled(folder: Path, *parts: range) -> TensorStore:
    """Return a store with one shard a part, each third entry in bfloat16."""
    store = TensorStore(folder)
    for numbers in parts:
        with StoreWriter(store) as writer:
            for number in numbers:
                writer.add(key(number), values(number), "bf16" if number % 3 == 0 else "fp16")
    return store


def shard_bytes(store: TensorStore) -> int:
    return sum(path.stat().st_size for path in shard_files(store.shards_folder))


def test_a_whole_store_has_no_problems(tmp_path: Path) -> None:
    report = verify_store(filled(tmp_path, range(0, 4), range(4, 10)))
    assert (report.shards, report.entries, report.problems) == (2, 10, ())
    assert report.size_bytes == shard_bytes(TensorStore(tmp_path))


def test_an_absent_store_is_whole_and_empty(tmp_path: Path) -> None:
    report = verify_store(TensorStore(tmp_path / "none"))
    assert (report.shards, report.entries, report.problems) == (0, 0, ())


def test_the_stores_of_a_cache_folder_are_found(tmp_path: Path) -> None:
    filled(tmp_path / "latents", range(0, 1))
    filled(tmp_path / "contexts", range(0, 1))
    (tmp_path / "other").mkdir()
    folders = [store.folder.name for store in find_stores(tmp_path)]
    assert folders == ["contexts", "latents"]
    assert [store.folder for store in find_stores(tmp_path / "latents")] == [tmp_path / "latents"]
    assert find_stores(tmp_path / "none") == ()


def test_every_kind_of_damage_is_found_and_named(tmp_path: Path) -> None:
    store = filled(tmp_path, range(0, 2), range(2, 4), range(4, 6), range(6, 8))
    missing, cut, altered, _ = shard_files(store.shards_folder)
    missing.unlink()
    cut.write_bytes(cut.read_bytes()[:-1])
    content = bytearray(altered.read_bytes())
    content[-1] ^= 1
    altered.write_bytes(bytes(content))
    left = store.shards_folder / "z.safetensors.part-00000000"
    left.write_bytes(b"half")
    report = verify_store(store)
    named = {problem.where for problem in report.problems}
    assert named == {str(path) for path in (missing, cut, altered, left)}
    # Looking changes nothing.
    assert verify_store(store) == report


def test_a_manifest_that_points_to_the_wrong_place_is_found(tmp_path: Path) -> None:
    store = filled(tmp_path, range(0, 4))
    connection = sqlite3.connect(store.manifest_path)
    connection.execute("UPDATE entries SET offset = offset + 8 WHERE key = ?", (bytes(16),))
    connection.commit()
    connection.close()
    (problem,) = verify_store(store).problems
    assert "does not fit" in problem.what


def test_pruning_shows_before_it_deletes_and_keeps_what_is_asked(tmp_path: Path) -> None:
    store = filled(tmp_path, range(0, 4), range(4, 10), range(10, 12))
    keep = [key(number) for number in (0, 1, 4, 9, 12345)]
    before = shard_bytes(store)
    look = prune(store, keep, dry_run=True)
    assert (look.entries, look.kept, look.done) == (8, 4, False)
    assert shard_bytes(store) == before
    assert store.has([key(number) for number in range(12)]).all()

    done = prune(store, keep, dry_run=False)
    assert (done.entries, done.kept, done.freed_bytes) == (8, 4, look.freed_bytes)
    assert store.has([key(number) for number in range(12)]).nonzero()[0].tolist() == [0, 1, 4, 9]
    for number in (0, 1, 4, 9):
        np.testing.assert_array_equal(store.read(key(number)), values(number))
    assert before - shard_bytes(store) >= done.freed_bytes
    assert len(shard_files(store.shards_folder)) == 1
    assert verify_store(store).problems == ()


def test_pruning_a_store_that_is_needed_whole_changes_nothing(tmp_path: Path) -> None:
    store = filled(tmp_path, range(0, 4))
    files = shard_files(store.shards_folder)
    result = prune(store, [key(number) for number in range(4)], dry_run=False)
    assert (result.entries, result.shards) == (0, 0)
    assert shard_files(store.shards_folder) == files


def test_pruning_everything_leaves_an_empty_store(tmp_path: Path) -> None:
    store = filled(tmp_path, range(0, 4), range(4, 6))
    assert prune(store, [], dry_run=False).entries == 6
    assert len(store) == 0
    assert shard_files(store.shards_folder) == []


def test_a_run_that_reads_meanwhile_finds_what_was_kept(tmp_path: Path) -> None:
    store = filled(tmp_path, range(0, 4), range(4, 8))
    reader = TensorStore(tmp_path)
    np.testing.assert_array_equal(reader.read(key(1)), values(1))
    prune(store, [key(1), key(5)], dry_run=False)
    # Shards that it had not opened yet are gone; their entries lie elsewhere now.
    np.testing.assert_array_equal(reader.read(key(5)), values(5))
    np.testing.assert_array_equal(reader.read_batch([key(5), key(1)])[1], values(1))
