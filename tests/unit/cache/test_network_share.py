"""On a network share SQLite works on a local copy, and the store is the same for its users."""

from __future__ import annotations

import os
import sqlite3
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
import pytest

from sdft.cache.database import is_on_network
from sdft.cache.digests import FileDigests, FileVersion
from sdft.cache.store import TensorStore
from sdft.cache.writer import StoreWriter, shard_files
from sdft.errors import UserError


def key(number: int) -> str:
    return f"{number:032x}"


def values(number: int) -> np.ndarray:
    return np.full((4, 8, 8), number, dtype=np.float32)


@pytest.fixture
def share(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder that looks like a mounted share."""
    folder = tmp_path / "share"
    folder.mkdir()
    (tmp_path / "local").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "local"))
    mounts = [("/", "ext4", "rw"), (str(folder), "nfs4", "rw"), (str(folder / "disk"), "xfs", "rw")]

    def partitions(all: bool) -> list[Any]:
        return [SimpleNamespace(mountpoint=m, fstype=f, opts=o) for m, f, o in mounts]

    monkeypatch.setattr(psutil, "disk_partitions", partitions)
    return folder


def test_the_nearest_mount_decides(share: Path, tmp_path: Path) -> None:
    assert is_on_network(share / "cache" / "not made yet")
    assert not is_on_network(tmp_path / "local")
    (share / "disk").mkdir()
    assert not is_on_network(share / "disk")


def test_a_store_on_a_share_keeps_what_it_was_given(
    share: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    connect = sqlite3.connect

    def noted(path: Any, *arguments: Any, **more: Any) -> sqlite3.Connection:
        opened.append(str(path))
        return connect(path, *arguments, **more)

    monkeypatch.setattr(sqlite3, "connect", noted)
    store = TensorStore(share / "cache")
    for number in range(3):
        with StoreWriter(store) as writer:
            writer.add(key(number), values(number), "fp32")
    for number in range(3):
        np.testing.assert_array_equal(
            TensorStore(share / "cache").read(key(number)), values(number)
        )
    assert opened
    assert not [path for path in opened if str(share) in path]
    assert {path.name for path in (share / "cache").iterdir()} == {"manifest.sqlite", "shards"}


def test_two_writers_on_one_machine_still_exclude_each_other(share: Path) -> None:
    store = TensorStore(share / "cache")
    with StoreWriter(store), pytest.raises(UserError, match=f"process {os.getpid()}"):
        StoreWriter(TensorStore(share / "cache")).__enter__()


def test_a_file_that_another_machine_may_be_writing_is_left_alone(share: Path) -> None:
    store = TensorStore(share / "cache")
    store.shards_folder.mkdir(parents=True)
    fresh = store.shards_folder / "a.safetensors.part-11111111"
    old = store.shards_folder / "b.safetensors.part-22222222"
    for path in (fresh, old):
        path.write_bytes(b"half")
    day_ago_s = time.time() - 86400
    os.utime(old, (day_ago_s, day_ago_s))
    with StoreWriter(store):
        pass
    assert shard_files(store.shards_folder) == [fresh]


def test_what_another_machine_added_is_taken_in(share: Path) -> None:
    store = TensorStore(share / "cache")
    with StoreWriter(store) as writer:
        writer.add(key(1), values(1), "fp32")
    before = store.manifest_path.read_bytes()
    with StoreWriter(store) as writer:
        writer.add(key(2), values(2), "fp32")
    # The other machine put its own list back last.
    store.manifest_path.write_bytes(before)
    with StoreWriter(store):
        pass
    assert store.has([key(1), key(2)]).all()


def test_digests_are_remembered_on_a_share(share: Path) -> None:
    picture = share / "a.png"
    picture.write_bytes(b"one")
    hour_ago_s = time.time() - 3600
    os.utime(picture, (hour_ago_s, hour_ago_s))
    with FileDigests(share / "digests.sqlite") as digests:
        digest = digests.digest(picture)
    with FileDigests(share / "digests.sqlite") as digests:
        assert digests.remembered([FileVersion.of(picture)]) == [digest]
