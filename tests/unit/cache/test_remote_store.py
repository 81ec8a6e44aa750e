"""A store of tensors in an object store: the same keys and bytes as on a disk, few requests."""

from __future__ import annotations

import pickle
import sqlite3
from pathlib import Path

import numpy as np
import pytest

from sdft.cache.digests import FileDigests, FileVersion, KnownFile
from sdft.cache.remote_store import RemoteStore
from sdft.cache.remote_upkeep import verify_remote
from sdft.cache.shard import encode_values, write_shard
from sdft.cache.shared_table import SharedTable
from sdft.cache.store import TensorStore
from sdft.cache.upkeep import prune
from sdft.cache.writer import StoreWriter
from sdft.cache.writing import helping_writer, writer_of
from sdft.dataset import drivers
from sdft.dataset.object_cache import ObjectCache
from sdft.errors import DataError, EnvironmentFault, UserError
from sdft.events import Event, Notice, ignore
from sdft.jobs.verify import run_verify
from sdft.urls import UrlPath
from tests.unit.cache.test_store import key, values
from tests.unit.dataset.conftest import asked, store

__all__ = ["asked", "store"]

URL = "memory://bucket/cache/latents"


def machine(folder: Path, *, max_bytes: int = 10**9, emit=ignore) -> RemoteStore:
    """Return the store as one machine sees it."""
    return RemoteStore(folder / "latents", URL, ObjectCache(folder / "objects", max_bytes), emit)


def fill(remote: RemoteStore, *parts: range) -> None:
    for numbers in parts:
        with writer_of(remote) as writer:
            for number in numbers:
                writer.add(key(number), values(number), "fp16")


def shards(store) -> list[str]:
    return sorted(name for name in store.store if name.startswith("/bucket/cache/latents/shards/"))


def test_another_machine_finds_what_one_wrote_with_the_bytes_of_a_cache_on_a_disk(
    store, asked, tmp_path
):
    fill(machine(tmp_path / "a"), range(20), range(20, 30))
    with StoreWriter(TensorStore(tmp_path / "disk")) as writer:
        for number in range(20):
            writer.add(key(number), values(number), "fp16")
    (local,) = (tmp_path / "disk" / "shards").iterdir()
    assert local.read_bytes() in [bytes(store.store[name].getbuffer()) for name in shards(store)]
    other = machine(tmp_path / "b")
    assert other.has([key(0), key(29), key(30)]).tolist() == [True, True, False]
    # What two shards hold is told by their headers.
    assert len(asked) == 2
    for number in (29, 3, 0, 20):
        np.testing.assert_array_equal(other.read(key(number)), values(number).astype(np.float16))
    # Each read alone, by its range; and once.
    assert [num_bytes for _, num_bytes in asked[2:]] == [4 * 8 * 6 * 2] * 4
    again = machine(tmp_path / "b")
    assert again.read_batch([key(29), key(3)]).shape == (2, 4, 8, 6)
    assert len(asked) == 6


def test_what_was_written_here_is_not_read_from_the_store(store, asked, tmp_path):
    fill(machine(tmp_path), range(20))
    here = machine(tmp_path)
    np.testing.assert_array_equal(here.read(key(7)), values(7).astype(np.float16))
    # The header, and nothing of the tensors.
    assert len(asked) == 1
    assert not list((tmp_path / "latents" / "shards").iterdir())


def test_several_are_asked_for_at_once(store, asked, tmp_path, monkeypatch):
    fill(machine(tmp_path / "a"), range(9))
    calls = []
    real = type(store).cat_ranges
    monkeypatch.setattr(
        type(store),
        "cat_ranges",
        lambda self, names, *how, **more: (
            calls.append(len(names)),
            real(self, names, *how, **more),
        )[1],
    )
    other = machine(tmp_path / "b")
    other.fetch([key(number) for number in (1, 5, 8, 77)])
    assert calls == [3]
    read = len(asked)
    other.read(key(5))
    assert len(asked) == read


def test_what_is_kept_here_stays_below_the_limit(store, tmp_path):
    fill(machine(tmp_path / "a"), range(40))
    limit = 8 * 4 * 8 * 6 * 2
    other = machine(tmp_path / "b", max_bytes=limit)
    for number in range(40):
        np.testing.assert_array_equal(other.read(key(number)), values(number).astype(np.float16))
    kept = [file for file in (tmp_path / "b" / "objects").rglob("*") if file.is_file()]
    assert 0 < sum(file.stat().st_size for file in kept) <= limit


def test_a_shard_that_a_killed_writer_did_not_send_is_sent_by_the_next_one(store, tmp_path):
    folder = tmp_path / "latents" / "shards"
    folder.mkdir(parents=True)
    stored = {key(1): ("F16", encode_values(values(1), "fp16"))}
    write_shard(folder / "whole.safetensors", stored)
    whole = (folder / "whole.safetensors").read_bytes()
    (folder / "cut.safetensors").write_bytes(whole[:-9])
    (folder / "new.safetensors.part-1").write_bytes(whole[:99])
    said: list[Event] = []
    fill(machine(tmp_path, emit=said.append), range(5, 6))
    assert [name.rpartition("/")[2] for name in shards(store)].count("whole.safetensors") == 1
    assert len(shards(store)) == 2
    assert not list(folder.iterdir())
    assert machine(tmp_path / "b").has([key(1), key(5)]).all()


def test_a_shard_that_cannot_be_sent_stays_here_and_is_sent_later(store, tmp_path, monkeypatch):
    monkeypatch.setattr(drivers, "FIRST_WAIT_S", 0.0)
    real = type(store).put_file

    def broken(*_args, **_how):
        raise OSError("the line broke")

    monkeypatch.setattr(type(store), "put_file", broken)
    with pytest.raises(EnvironmentFault, match="the line broke"):
        fill(machine(tmp_path), range(3))
    assert shards(store) == []
    monkeypatch.setattr(type(store), "put_file", real)
    fill(machine(tmp_path), range(0))
    assert machine(tmp_path / "b").has([key(number) for number in range(3)]).all()


def test_a_damaged_shard_is_named_and_what_it_held_is_missing(store, tmp_path):
    fill(machine(tmp_path), range(3), range(3, 5))
    first = shards(store)[0]
    store.pipe_file(first, bytes(store.store[first].getbuffer())[:-7])
    said: list[Event] = []
    other = machine(tmp_path / "b", emit=said.append)
    assert int(other.has([key(number) for number in range(5)]).sum()) in (2, 3)
    (notice,) = [one for one in said if isinstance(one, Notice)]
    assert "a cache file is damaged" in notice.message
    assert first.rpartition("/")[2] in notice.message


def test_one_of_several_processes_sends_what_it_made_by_itself(store, tmp_path):
    helper = helping_writer(machine(tmp_path / "a"))
    helper.add(key(3), values(3), "fp16")
    helper.flush()
    assert helper.written == []
    assert machine(tmp_path / "b").has([key(3)]).all()


def test_two_processes_of_a_machine_do_not_write_at_once(store, tmp_path):
    with (
        writer_of(machine(tmp_path)),
        pytest.raises(UserError, match="is writing this cache"),
        writer_of(machine(tmp_path)),
    ):
        pass


def test_pruning_takes_away_what_nobody_needs(store, tmp_path):
    fill(machine(tmp_path / "a"), range(6), range(6, 8))
    result = prune(machine(tmp_path / "b"), [key(1), key(7)], dry_run=False)
    assert (result.entries, result.kept) == (6, 2)
    assert len(shards(store)) == 1
    other = machine(tmp_path / "c")
    assert len(other) == 2
    np.testing.assert_array_equal(other.read(key(7)), values(7).astype(np.float16))


def test_a_reader_finds_what_another_machine_moved_meanwhile(store, tmp_path):
    fill(machine(tmp_path / "a"), range(6))
    reader = machine(tmp_path / "b")
    assert len(reader) == 6
    prune(machine(tmp_path / "c"), [key(4)], dry_run=False)
    np.testing.assert_array_equal(reader.read(key(4)), values(4).astype(np.float16))
    with pytest.raises(DataError, match="does not hold"):
        reader.read(key(2))


def test_a_store_is_sent_to_another_process_by_its_place(store, tmp_path):
    fill(machine(tmp_path), range(2))
    read = pickle.loads(pickle.dumps(machine(tmp_path).read))
    np.testing.assert_array_equal(read(key(1)), values(1).astype(np.float16))


def test_a_store_that_refuses_ends_in_words(store, tmp_path, monkeypatch):
    fill(machine(tmp_path / "a"), range(2))
    monkeypatch.setattr(drivers, "FIRST_WAIT_S", 0.0)
    other = machine(tmp_path / "b")
    assert len(other) == 2

    def broken(*_args, **_how):
        raise OSError("the line broke")

    monkeypatch.setattr(type(store), "cat_file", broken)
    with pytest.raises(EnvironmentFault, match="the cache cannot be used: tried 4 times"):
        other.read(key(1))


def known(path: Path, number: int) -> KnownFile:
    version = FileVersion(path=path, size_bytes=number, mtime_ns=10**18 + number)
    return KnownFile(version=version, digest=f"{number:032x}")


def digests(folder: Path, emit=ignore) -> FileDigests:
    shared = SharedTable(url="memory://bucket/cache/digests.sqlite", table="digests", emit=emit)
    return FileDigests(folder / "digests.sqlite", shared)


def test_digests_of_objects_are_known_to_other_machines_and_those_of_files_are_not(store, tmp_path):
    image, file = UrlPath("s3://bucket/1.png"), tmp_path / "1.png"
    with digests(tmp_path / "a") as here:
        here.remember(known(image, 1))
        here.remember(known(file, 2))
    with digests(tmp_path / "b") as there:
        assert there.remembered([known(image, 1).version, known(file, 2).version]) == [
            f"{1:032x}",
            None,
        ]
        there.remember(known(UrlPath("s3://bucket/3.png"), 3))
    with digests(tmp_path / "a") as here:
        versions = [known(image, 1).version, known(UrlPath("s3://bucket/3.png"), 3).version]
        assert None not in here.remembered(versions)


def test_what_two_machines_learn_at_once_is_not_lost(store, tmp_path):
    with digests(tmp_path / "a") as one, digests(tmp_path / "b") as other:
        one.remember(known(UrlPath("s3://bucket/1.png"), 1))
        other.remember(known(UrlPath("s3://bucket/2.png"), 2))
    with digests(tmp_path / "c") as later:
        versions = [
            known(UrlPath(f"s3://bucket/{number}.png"), number).version for number in (1, 2)
        ]
        assert None not in later.remembered(versions)


def test_a_table_that_is_none_is_said_and_made_anew(store, tmp_path):
    store.pipe_file("/bucket/cache/digests.sqlite", b"no database" * 99)
    said: list[Event] = []
    with digests(tmp_path / "a", said.append) as here:
        here.remember(known(UrlPath("s3://bucket/1.png"), 1))
    assert "cannot be read" in str(said)
    content = bytes(store.store["/bucket/cache/digests.sqlite"].getbuffer())
    (tmp_path / "found").write_bytes(content)
    with sqlite3.connect(tmp_path / "found") as found:
        assert found.execute("SELECT count(*) FROM digests").fetchone() == (1,)


def test_verify_reads_every_byte_of_a_cache_in_a_store(store, tmp_path):
    fill(machine(tmp_path / "a"), range(3), range(3, 5))
    (report,) = verify_remote(URL.removesuffix("/latents"), emit=ignore).values()
    assert (report.shards, report.entries, report.problems) == (2, 5, ())
    name = shards(store)[1]
    content = bytearray(store.store[name].getbuffer())
    content[-1] ^= 1
    store.pipe_file(name, bytes(content))
    (report,) = verify_remote(URL, emit=ignore).values()
    assert (report.shards, len(report.problems)) == (2, 1)
    assert "its checksum does not fit" in report.problems[0].what
    assert name.rpartition("/")[2] in report.problems[0].where
    with pytest.raises(UserError, match="there is no cache here"):
        run_verify(UrlPath("memory://bucket/nothing"), emit=ignore)


def test_the_newer_state_of_an_object_is_the_one_that_all_come_to_know(store, tmp_path):
    image, other = UrlPath("s3://bucket/1.png"), UrlPath("s3://bucket/2.png")
    for folder, number in (("a", 1), ("b", 7)):
        with digests(tmp_path / folder) as here:
            here.remember(known(image, number))
    # Who saw it when it was older tells of something else.
    with digests(tmp_path / "a") as here:
        here.remember(known(other, 2))
    with digests(tmp_path / "c") as there:
        assert there.remembered([known(image, 7).version]) == [f"{7:032x}"]
