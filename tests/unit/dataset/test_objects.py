"""Images of an object store are read as those of a folder are; memory:// needs no server."""

from __future__ import annotations

import json
import pickle
import sys
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from threading import Thread

import pyarrow
import pytest
from PIL import Image
from pyarrow import parquet

from sdft.cache.digests import FileVersion, read_with_digest
from sdft.cache.image_memory import image_memory
from sdft.config.folders import cache_folder
from sdft.config.load import load_config
from sdft.dataset import drivers
from sdft.dataset.index import build_index
from sdft.dataset.object_cache import ObjectCache
from sdft.dataset.objects import ObjectPath, notes_of
from sdft.dataset.pixels import decode_rgb
from sdft.dataset.records import SubsetSpec
from sdft.errors import ConfigError, DataError, EnvironmentFault
from sdft.events import ignore
from sdft.urls import UrlPath, holds_credentials, redacted

ROOT = "memory://pictures/cats"


def png(number: int, size=(64, 48), noise_bytes=0) -> bytes:
    file = BytesIO()
    Image.new("RGB", size, (number % 256, 60, 90)).save(file, "PNG")
    return file.getvalue() + bytes(noise_bytes)


def fill(system, num_images=5, **how):
    for number in range(num_images):
        system.pipe_file(f"/pictures/cats/{number}.png", png(number, **how))
        system.pipe_file(f"/pictures/cats/{number}.txt", f"cat {number}".encode())


def spec(**how) -> SubsetSpec:
    how = {"caption_extension": ".txt", "image_dir": UrlPath(ROOT)} | how
    return SubsetSpec(**how)


def index_of(one: SubsetSpec, folder: Path, *, max_bytes=10**9, memory=None):
    cache = ObjectCache(folder, max_bytes)
    return build_index([[one]], emit=ignore, objects=cache, memory=memory)


def test_a_url_stays_one_as_a_path():
    path = UrlPath("s3://bucket/cats") / "1.png"
    assert str(path) == "s3://bucket/cats/1.png"
    assert str(path.parent) == "s3://bucket/cats"
    assert str(path.with_suffix(".txt")) == "s3://bucket/cats/1.txt"
    assert (path.name, path.is_absolute(), path.is_file()) == ("1.png", True, False)
    assert path == UrlPath("s3://bucket/cats/1.png")


def test_an_index_of_objects_is_that_of_the_same_files(store, tmp_path):
    fill(store)
    store.pipe_file("/pictures/cats/deep/9.png", png(9))
    store.pipe_file("/pictures/cats/.hidden/8.png", png(8))
    for name in store.find("/pictures/cats"):
        file = tmp_path / "local" / name.removeprefix("/pictures/cats/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(store.cat_file(name))
    for recursive in (False, True):
        there = index_of(spec(recursive=recursive), tmp_path / "kept")
        here = index_of(spec(image_dir=tmp_path / "local", recursive=recursive), tmp_path / "none")
        facts = [
            [(one.key, one.size, one.caption) for one in index.items] for index in (there, here)
        ]
        assert facts[0] == facts[1]
        assert len(facts[0]) == 5 + recursive
        assert str(there.items[0].path) == f"{ROOT}/0.png"


def test_pixels_and_digests_come_through_the_cache(store, tmp_path):
    fill(store)
    item = index_of(spec(), tmp_path).items[2]
    store.store.clear()
    assert (decode_rgb(item.path) == decode_rgb(png(2))).all()
    read = read_with_digest(item.path)
    assert read.content == png(2)
    assert read.known.version == FileVersion(
        path=item.path, size_bytes=item.file_bytes, mtime_ns=item.mtime_ns
    )
    sent = pickle.loads(pickle.dumps(item.path))
    assert isinstance(sent, ObjectPath)
    assert sent.read_bytes() == png(2)


def test_a_second_start_reads_nothing_and_a_changed_object_is_read(store, tmp_path, monkeypatch):
    fill(store)
    with image_memory(tmp_path / "memory", emit=ignore) as memory:
        index_of(spec(), tmp_path / "kept", memory=memory)
    store.pipe_file("/pictures/cats/3.txt", b"another cat")
    asked = []
    real = type(store).cat_file

    def cat_file(self, path, *args, **kwargs):
        asked.append(path)
        return real(self, path, *args, **kwargs)

    monkeypatch.setattr(type(store), "cat_file", cat_file)
    with image_memory(tmp_path / "memory", emit=ignore) as memory:
        index = index_of(spec(), tmp_path / "kept", memory=memory)
    assert [item.caption for item in index.items][3] == "another cat"
    assert asked == ["/pictures/cats/3.txt"]


def test_the_cache_keeps_within_its_size_and_says_where_it_cannot_hold_all(store, tmp_path):
    fill(store, num_images=20, noise_bytes=100_000)
    index = index_of(spec(), tmp_path, max_bytes=500_000)
    assert len(index.items) == 20
    assert "more than the 500 kB that are kept" in str(index.notices)
    for item in index.items:
        assert len(item.path.read_bytes()) == item.file_bytes
        kept = sum(file.stat().st_size for file in tmp_path.rglob("*") if file.is_file())
        assert kept <= 500_000


def test_the_longest_unused_go_first(tmp_path):
    import os

    cache = ObjectCache(tmp_path, 10_000)
    for number in range(9):
        cache.put(f"s3://b/{number}", (1000, number), bytes(1000))
    for age, file in enumerate(file for file in tmp_path.rglob("*") if file.is_file()):
        os.utime(file, ns=(0, 10**18 + age))
    assert cache.get("s3://b/4", (1000, 4)) is not None
    cache.put("s3://b/9", (1000, 9), bytes(1000))
    held = [number for number in range(10) if cache.holds(f"s3://b/{number}", (1000, number))]
    assert {4, 9} <= set(held)
    assert len(held) == 9


@pytest.mark.parametrize("fault", [OSError("the line broke"), TimeoutError("no answer")])
def test_a_read_that_fails_twice_succeeds_and_is_told(store, tmp_path, monkeypatch, fault):
    fill(store)
    monkeypatch.setattr(drivers, "FIRST_WAIT_S", 0.001)
    real, left = type(store).cat_file, [3]

    def cat_file(self, path, *args, **kwargs):
        # Once in the reading of many, twice alone.
        if path.endswith("1.png") and left[0]:
            left[0] -= 1
            raise fault
        return real(self, path, *args, **kwargs)

    monkeypatch.setattr(type(store), "cat_file", cat_file)
    index = index_of(spec(), tmp_path)
    assert (len(index.items), left) == (5, [0])
    assert str(index.notices).count("1.png was not read at once and is tried again") == 2


def test_a_read_that_fails_for_good_rejects_the_image(store, tmp_path, monkeypatch):
    fill(store)
    monkeypatch.setattr(drivers, "FIRST_WAIT_S", 0.001)
    real = type(store).cat_file

    def cat_file(self, path, *args, **kwargs):
        if path.endswith("1.png"):
            raise OSError("the line broke")
        return real(self, path, *args, **kwargs)

    monkeypatch.setattr(type(store), "cat_file", cat_file)
    index = index_of(spec(), tmp_path)
    assert [(str(one.path), "tried 4 times" in one.reason) for one in index.rejected] == [
        (f"{ROOT}/1.png", True)
    ]


def test_pixels_that_come_late_are_told_of_too(store, tmp_path, monkeypatch):
    fill(store)
    monkeypatch.setattr(drivers, "FIRST_WAIT_S", 0.001)
    item = index_of(spec(), tmp_path, max_bytes=1).items[0]
    real, left = type(store).cat_file, [2]

    def cat_file(self, path, *args, **kwargs):
        if left[0]:
            left[0] -= 1
            raise OSError("the line broke")
        return real(self, path, *args, **kwargs)

    monkeypatch.setattr(type(store), "cat_file", cat_file)
    assert item.path.read_bytes() == png(0)
    assert len(notes_of(item.path)) == 2


def test_a_large_image_is_measured_by_its_first_bytes(store, asked, tmp_path):
    store.pipe_file("/pictures/cats/a.png", png(1, noise_bytes=1_000_000))
    # An EXIF block that fills the first 64 KiB, so that the size stands behind them.
    file = BytesIO()
    Image.new("RGB", (80, 40)).save(
        file, "JPEG", comment=b"x" * 60_000, exif=b"Exif\0\0" + bytes(9000)
    )
    store.pipe_file("/pictures/cats/b.jpg", file.getvalue() + bytes(100_000))
    index = index_of(spec(class_tokens="cat"), tmp_path, max_bytes=100_000)
    assert [item.size for item in index.items] == [(64, 48), (80, 40)]
    assert ("/pictures/cats/a.png", 65536) in asked
    assert max(size for path, size in asked if path.endswith("a.png")) == 65536


def test_captions_may_come_from_a_metadata_object(store, tmp_path):
    fill(store)
    store.pipe_file(
        "/pictures/meta.json", b'{"1": {"caption": "one"}, "4.png": {"caption": "four"}}'
    )
    one = spec(metadata_file=UrlPath("memory://pictures/meta.json"))
    index = index_of(one, tmp_path)
    assert [(item.key, item.caption) for item in index.items] == [
        ("1.png", "one"),
        ("4.png", "four"),
    ]
    assert index.items[0].path.read_bytes() == png(1)


def test_a_key_that_names_a_file_here_is_rejected_not_a_crash(store, tmp_path):
    fill(store)
    (tmp_path / "own.png").write_bytes(png(7))
    keys = {str(tmp_path / "own.png"): {"caption": "own"}, "1": {"caption": "one"}}
    store.pipe_file("/pictures/meta.json", json.dumps(keys).encode())
    one = spec(metadata_file=UrlPath("memory://pictures/meta.json"))
    index = index_of(one, tmp_path / "kept")
    assert [item.key for item in index.items] == ["1.png"]
    assert [(one.path.name, "not in the listing" in one.reason) for one in index.rejected] == [
        ("own.png", True)
    ]


def test_captions_may_come_from_a_parquet_object(store, tmp_path, monkeypatch):
    fill(store)
    columns = {
        "image_path": ["1", "4.png"],
        "caption": ["one", None],
        "tags": ["a, b", "four"],
        "train_resolution": [[64, 64], None],
    }
    file = BytesIO()
    parquet.write_table(pyarrow.table(columns), file)
    store.pipe_file("/pictures/meta.parquet", file.getvalue())
    one = spec(metadata_file=UrlPath("memory://pictures/meta.parquet"))
    index = index_of(one, tmp_path)
    captions = [(item.key, item.caption) for item in index.items]
    assert captions == [("1.png", "one,a, b"), ("4.png", "four")]
    store.pipe_file("/pictures/meta.parquet", b"PAR1 and nothing")
    with pytest.raises(DataError, match="not a Parquet file"):
        index_of(one, tmp_path)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(EnvironmentFault, match=r"sdft-trainer\[parquet\]"):
        index_of(one, tmp_path)


@pytest.mark.parametrize(
    ("url", "said"),
    [("memory://pictures/none", "no images"), ("memory://pictures/cats/x.json", "no such object")],
)
def test_what_is_not_there_is_named(store, tmp_path, url, said):
    fill(store)
    path = UrlPath(url)
    one = spec(metadata_file=path) if url.endswith("json") else spec(image_dir=path, recursive=True)
    with pytest.raises(DataError, match=said) as caught:
        index_of(one, tmp_path)
    assert "memory://pictures" in str(caught.value)


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *words):
        pass


def test_images_of_a_web_server_are_read_and_what_its_listing_lacks_is_told(tmp_path):
    for number in range(3):
        (tmp_path / "web" / "cats").mkdir(parents=True, exist_ok=True)
        (tmp_path / "web" / "cats" / f"{number}.png").write_bytes(png(number))
        (tmp_path / "web" / "cats" / f"{number}.txt").write_text(f"cat {number}", "ascii")
    handler = partial(_Quiet, directory=str(tmp_path / "web"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            root = UrlPath(f"http://127.0.0.1:{server.server_port}/cats")
            index = index_of(spec(image_dir=root), tmp_path / "kept")
        finally:
            server.shutdown()
            thread.join()
    assert [(item.key, item.caption) for item in index.items] == [
        (f"{number}.png", f"cat {number}") for number in range(3)
    ]
    assert "gives no ETag and no time" in str(index.notices)
    assert index.items[2].path.read_bytes() == png(2)


def test_the_old_command_line_takes_urls_and_keeps_its_cache_here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    flags = {"train_data_dir": ROOT, "in_json": f"{ROOT}/m.json", "resolution": "512"}
    config = load_config(None, flags, tmp_path)
    (subset,) = config.datasets[0].subsets
    assert (str(subset.image_dir), str(subset.metadata_file)) == (ROOT, f"{ROOT}/m.json")
    assert cache_folder(config).absolute() == tmp_path / ".sdft-cache"


@pytest.mark.parametrize(
    ("name", "url", "said"),
    [
        ("output_dir", "https://host/out", "output_dir cannot be on a web server"),
        ("output_dir", "s3://me:hunter22@bucket/out", "passwords and signatures"),
        ("resume", "s3://bucket/x?sig=hunter22", "passwords and signatures"),
        ("logging_dir", "s3://bucket/logs", "logging_dir cannot be a URL"),
        ("cache_dir", "https://host/cache", "cache_dir cannot be on a web server"),
        ("train_data_dir", "https://me:hunter22@host/x", "passwords and signatures"),
        ("train_data_dir", "https://host/x?sig=hunter22", "passwords and signatures"),
    ],
)
def test_urls_that_cannot_be_used_are_refused_and_secrets_not_repeated(tmp_path, name, url, said):
    with pytest.raises(ConfigError, match=said) as caught:
        load_config(None, {name: url}, tmp_path)
    assert "hunter22" not in str(caught.value)


def test_messages_lose_users_queries_and_secrets(monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI/K7MDENG")
    text = "GET https://me:pass@host/a?X-Amz-Signature=abcd with wJalrXUtnFEMI/K7MDENG failed"
    assert redacted(text) == "GET https://host/a with *** failed"
    assert holds_credentials("s3://key:secret@bucket/x")
    assert holds_credentials("https://host/x?sig=1")
    assert not holds_credentials("s3://bucket/a@2x.png")
