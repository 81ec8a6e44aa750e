"""The store keeps what it was given, through kills, damage and other readers."""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import sqlite3
import subprocess
import sys
import textwrap
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from sdft.cache.shard import encode_values, read_shard
from sdft.cache.store import TensorStore
from sdft.cache.writer import StoreWriter, shard_files
from sdft.errors import DataError, EnvironmentFault, UserError
from sdft.events import Event, Notice


def key(number: int) -> str:
    return f"{number:032x}"


def values(number: int, shape: tuple[int, ...] = (4, 8, 6)) -> np.ndarray:
    return np.random.default_rng(number).standard_normal(shape).astype(np.float32)


def filled(folder: Path, *parts: range) -> TensorStore:
    """Return a store with one shard a part."""
    store = TensorStore(folder)
    for numbers in parts:
        with StoreWriter(store) as writer:
            for number in numbers:
                writer.add(key(number), values(number), "fp16")
    return store


def test_what_was_added_is_read_back_by_key_in_any_order(tmp_path: Path) -> None:
    store = filled(tmp_path, range(0, 20), range(20, 30))
    for number in (29, 3, 0, 20):
        np.testing.assert_array_equal(store.read(key(number)), values(number).astype(np.float16))
    batch = store.read_batch([key(number) for number in (25, 1, 7)])
    assert batch.shape == (3, 4, 8, 6)
    np.testing.assert_array_equal(batch[2], values(7).astype(np.float16))
    assert store.has([key(5), key(30), key(29)]).tolist() == [True, False, True]
    assert len(store) == 30


def test_float32_and_bfloat16_come_back_as_the_values_that_were_kept(tmp_path: Path) -> None:
    store = TensorStore(tmp_path)
    with StoreWriter(store) as writer:
        writer.add(key(1), values(1), "fp32")
        writer.add(key(2), values(2), "bf16")
    np.testing.assert_array_equal(store.read(key(1)), values(1))
    kept = store.read(key(2))
    assert kept.dtype == np.float32
    np.testing.assert_allclose(kept, values(2), rtol=2**-8)


def test_bfloat16_rounds_to_nearest_even_and_keeps_nan_and_infinity() -> None:
    one, step = 0x3F800000, 0x10000
    bits = [one + step // 2, one + step + step // 2, one + step // 2 + 1, one + step // 2 - 1]
    exact = np.array(bits, dtype=np.uint32).view(np.float32)
    assert encode_values(exact, "bf16").tolist() == [0x3F80, 0x3F82, 0x3F81, 0x3F80]
    special = np.array([0x7F800001, 0x7F800000, 0xFF800000], dtype=np.uint32).view(np.float32)
    nan, infinity, negative = encode_values(special, "bf16").tolist()
    assert (infinity, negative) == (0x7F80, 0xFF80)
    assert nan & 0x7F80 == 0x7F80
    assert nan & 0x7F != 0


def test_shards_are_ordinary_safetensors_files(tmp_path: Path) -> None:
    from safetensors import safe_open

    store = filled(tmp_path, range(0, 3))
    (path,) = shard_files(store.shards_folder)
    with safe_open(path, "np") as file:
        assert sorted(file.keys()) == [key(0), key(1), key(2)]
        np.testing.assert_array_equal(file.get_tensor(key(2)), values(2).astype(np.float16))


def test_a_store_travels_to_another_process_by_its_path(tmp_path: Path) -> None:
    store = filled(tmp_path, range(0, 3))
    store.read(key(0))
    assert len(pickle.dumps(store)) < 400
    np.testing.assert_array_equal(
        pickle.loads(pickle.dumps(store)).read(key(2)), store.read(key(2))
    )


def test_a_key_that_is_not_held_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cache-latents"):
        filled(tmp_path, range(0, 2)).read(key(9))


def test_a_batch_of_two_shapes_is_refused(tmp_path: Path) -> None:
    store = TensorStore(tmp_path)
    with StoreWriter(store) as writer:
        writer.add(key(1), values(1), "fp16")
        writer.add(key(2), values(2, (4, 8, 8)), "fp16")
    with pytest.raises(DataError, match="one resolution"):
        store.read_batch([key(1), key(2)])


def cut_off(path: Path) -> None:
    with path.open("rb+") as file:
        file.truncate(path.stat().st_size - 10)


def flip_one_byte(path: Path) -> None:
    with path.open("rb+") as file:
        file.seek(-5, os.SEEK_END)
        byte = file.read(1)[0]
        file.seek(-5, os.SEEK_END)
        file.write(bytes([byte ^ 1]))
    later_ns = path.stat().st_mtime_ns + 1_000_000_000
    os.utime(path, ns=(later_ns, later_ns))


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("harm", [cut_off, flip_one_byte, empty, Path.unlink])
def test_a_damaged_shard_is_named_and_costs_only_what_it_held(
    tmp_path: Path, harm: Callable[[Path], None]
) -> None:
    first, second = range(0, 5), range(5, 9)
    store = filled(tmp_path, first, second)
    victim = next(
        path
        for path in shard_files(store.shards_folder)
        if key(0) in {entry.key for entry in read_shard(path)}
    )
    harm(victim)

    store = TensorStore(tmp_path)
    assert not store.has([key(number) for number in first]).any()
    assert store.has([key(number) for number in second]).all()

    events: list[Event] = []
    with StoreWriter(store, emit=events.append) as writer:
        for number in first:
            writer.add(key(number), values(number), "fp16")
    assert [event for event in events if isinstance(event, Notice) and victim.name in event.message]
    store = TensorStore(tmp_path)
    assert store.has([key(number) for number in (*first, *second)]).all()
    assert not store.damaged
    assert not victim.exists()


def test_a_copied_cache_is_checked_once_and_then_trusted(tmp_path: Path) -> None:
    store = filled(tmp_path, range(0, 3))
    (path,) = shard_files(store.shards_folder)
    os.utime(path, ns=(1, 1))
    store = TensorStore(tmp_path)
    assert store.has([key(1)]).all()
    assert store.unconfirmed
    with StoreWriter(store):
        pass
    assert not TensorStore(tmp_path).unconfirmed


def test_a_lost_or_broken_manifest_is_made_again_from_the_shards(tmp_path: Path) -> None:
    store = filled(tmp_path, range(0, 5), range(5, 9))
    store.manifest_path.write_bytes(b"not a database, but long enough to look at" * 40)
    with pytest.raises(DataError, match="made again"):
        TensorStore(tmp_path).has([key(1)])
    with StoreWriter(store):
        pass
    assert store.has([key(number) for number in range(9)]).all()
    store.manifest_path.unlink()
    with StoreWriter(store):
        pass
    assert store.has([key(number) for number in range(9)]).all()


def test_half_written_files_go_and_foreign_files_stay(tmp_path: Path) -> None:
    store = filled(tmp_path, range(0, 5))
    half = store.shards_folder / "x.safetensors.part-12345678"
    broken = store.shards_folder / "y.safetensors"
    foreign = store.shards_folder / "Thumbs.db"
    for path in (half, broken, foreign):
        path.write_bytes(b"some bytes")
    with StoreWriter(store):
        pass
    assert not half.exists()
    assert not broken.exists()
    assert foreign.exists()
    assert store.has([key(1)]).all()


def test_only_one_process_writes_and_the_other_is_told_who(tmp_path: Path) -> None:
    store = filled(tmp_path, range(0, 1))
    with StoreWriter(store), pytest.raises(UserError, match=f"process {os.getpid()}"):
        StoreWriter(TensorStore(tmp_path)).__enter__()


def test_reading_goes_on_while_another_writes(tmp_path: Path) -> None:
    reader = filled(tmp_path, range(0, 3))
    assert len(reader) == 3
    with StoreWriter(TensorStore(tmp_path)) as writer:
        for number in range(3, 6):
            writer.add(key(number), values(number), "fp16")
        writer.flush()
        assert len(TensorStore(tmp_path).read_batch([key(0), key(2)])) == 2
    assert not reader.has([key(4)]).any()
    reader.refresh()
    assert reader.has([key(4)]).all()


def test_an_error_in_the_block_keeps_what_was_added(tmp_path: Path) -> None:
    store = TensorStore(tmp_path)
    with contextlib.suppress(ZeroDivisionError), StoreWriter(store) as writer:
        writer.add(key(1), values(1), "fp16")
        raise ZeroDivisionError
    assert store.has([key(1)]).all()


KILLED_WRITER = """
    import os, signal, sys
    from pathlib import Path
    import numpy as np
    from sdft import files
    from sdft.cache import writer as writing
    from sdft.cache.store import TensorStore

    def die(*_, **__):
        os.kill(os.getpid(), signal.SIGKILL)

    folder, when = Path(sys.argv[1]), sys.argv[2]
    with writing.StoreWriter(TensorStore(folder), shard_bytes=4 * 384) as writer:
        for number in range(8):
            writer.add(f"{number:032x}", np.full((4, 8, 6), number, np.float32), "fp16")
        writer._wait()
        writer.add(f"{8:032x}", np.full((4, 8, 6), 8, np.float32), "fp16")
        if when == "while a shard is written":
            files.flush_to_disk = die
        elif when == "between a shard and its row":
            writing.add_shard = die
        else:
            die()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
@pytest.mark.parametrize(
    ("when", "num_kept"),
    [
        ("between two shards", 8),
        ("while a shard is written", 8),
        ("between a shard and its row", 9),
    ],
)
def test_a_killed_writer_leaves_every_finished_shard(
    tmp_path: Path, when: str, num_kept: int
) -> None:
    # Four entries fill a shard, so the ninth is still in memory when the block ends.
    code = textwrap.dedent(KILLED_WRITER)
    done = subprocess.run([sys.executable, "-c", code, tmp_path, when], check=False, timeout=250)
    assert done.returncode == -signal.SIGKILL
    store = TensorStore(tmp_path)
    assert store.has([key(number) for number in range(8)]).all()
    with StoreWriter(store):
        pass
    assert len(store) == num_kept
    assert float(store.read(key(7)).mean()) == 7.0
    assert len(shard_files(store.shards_folder)) == -(-num_kept // 4)


def test_threads_may_share_one_store(tmp_path: Path) -> None:
    store = filled(tmp_path, range(0, 20), range(20, 40))
    wanted = [key(number) for number in range(40)]
    with ThreadPoolExecutor(8) as pool:
        batches = list(pool.map(store.read_batch, [wanted[::-1], wanted] * 20))
    assert all(np.array_equal(batch, batches[1]) for batch in batches[1::2])
    assert all(np.array_equal(batch[::-1], batches[1]) for batch in batches[::2])


LIGHT_READER = """
    import pickle, sys
    store = pickle.loads(bytes.fromhex(sys.argv[1]))
    print(float(store.read("0" * 31 + "7").sum()))
    print(sorted({"torch", "PIL", "diffusers", "transformers"} & sys.modules.keys()))
"""


def test_a_worker_reads_without_torch_and_pillow(tmp_path: Path) -> None:
    store = filled(tmp_path, range(0, 10))
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(LIGHT_READER), pickle.dumps(store).hex()],
        check=True,
        timeout=250,
        capture_output=True,
        text=True,
    )
    total, heavy = done.stdout.splitlines()
    assert float(total) == float(store.read(key(7)).sum())
    assert heavy == "[]"


@pytest.mark.skipif(
    sys.platform == "win32" or os.geteuid() == 0, reason="this person may write everywhere"
)
def test_a_folder_that_cannot_be_written_is_said_so(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(EnvironmentFault, match="choose another cache_dir"):
        StoreWriter(TensorStore(tmp_path / "cache")).__enter__()


def test_a_cache_folder_that_is_a_file_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(EnvironmentFault, match="choose another cache_dir"):
        StoreWriter(TensorStore(tmp_path / "cache")).__enter__()


def test_a_manifest_of_another_version_is_refused(tmp_path: Path) -> None:
    store = filled(tmp_path, range(0, 2))
    with contextlib.closing(sqlite3.connect(store.manifest_path)) as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(DataError, match="version 99"):
        TensorStore(tmp_path).has([key(1)])
    with pytest.raises(DataError, match="version 99"):
        StoreWriter(TensorStore(tmp_path)).__enter__()
