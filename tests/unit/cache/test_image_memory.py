"""A second index only asks for size and time of files, and still sees every change."""

import os
import sqlite3
import time
from dataclasses import replace
from pathlib import Path

import pytest

from sdft.cache.image_memory import FILE_NAME, image_memory
from sdft.dataset import headers, index, reading
from sdft.dataset.index import build_index
from sdft.dataset.records import SubsetSpec, WordRules
from sdft.events import Notice
from tests.unit.dataset.pictures import captioned, picture

OLD_S = time.time() - 1000


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    captioned(folder, "a.png", "b.png", "c.png")
    make_old(folder)
    return folder


def make_old(folder):
    """Files that were written just now are not remembered: they could change unseen."""
    for number, path in enumerate(sorted(folder.iterdir())):
        os.utime(path, (OLD_S, OLD_S + number))


class Opened:
    """Counts what is opened."""

    def __init__(self, monkeypatch):
        self.headers = self.captions = 0
        read_header, raw_caption = headers.read, reading.raw_caption

        def count_header(*arguments):
            self.headers += 1
            return read_header(*arguments)

        def count_caption(*arguments, **named):
            self.captions += 1
            return raw_caption(*arguments, **named)

        monkeypatch.setattr(headers, "read", count_header)
        monkeypatch.setattr(reading, "raw_caption", count_caption)

    def take(self):
        counts = (self.headers, self.captions)
        self.headers = self.captions = 0
        return counts


@pytest.fixture
def opened(monkeypatch):
    return Opened(monkeypatch)


def index_with_memory(images, cache, events=None, **spec):
    with image_memory(cache, emit=[].append if events is None else events.append) as memory:
        subset = SubsetSpec(image_dir=images, **spec)
        return build_index([[subset]], emit=lambda event: None, memory=memory)


def test_a_second_index_opens_nothing_and_is_the_same(images, tmp_path, opened):
    first = index_with_memory(images, tmp_path / "cache")
    assert opened.take() == (3, 3)
    second = index_with_memory(images, tmp_path / "cache")
    assert opened.take() == (0, 0)
    assert second == first
    assert first == build_index([[SubsetSpec(image_dir=images)]], emit=lambda event: None)


def test_what_changed_is_read_again_and_nothing_else(images, tmp_path, opened):
    cache = tmp_path / "cache"
    index_with_memory(images, cache)
    opened.take()
    picture(images / "a.png", (50, 70))
    (images / "b.caption").write_text("other words", "utf-8")
    (images / "c.caption").unlink()
    captioned(images, "d.png")
    index = index_with_memory(images, cache)
    assert opened.take() == (2, 3)
    assert [item.size for item in index.items] == [(50, 70), (64, 48), (64, 48), (64, 48)]
    assert [item.caption for item in index.items] == ["words", "other words", "", "words"]


def test_a_file_that_was_just_written_is_not_remembered(tmp_path, opened):
    folder = tmp_path / "images"
    folder.mkdir()
    captioned(folder, "a.png")
    for _ in range(2):
        index_with_memory(folder, tmp_path / "cache")
        assert opened.take() == (1, 1)


def test_other_rules_for_captions_read_them_again(images, tmp_path, opened):
    (images / "a.caption").write_text("one\ntwo", "utf-8")
    make_old(images)
    cache = tmp_path / "cache"
    assert index_with_memory(images, cache).items[0].caption == "one"
    opened.take()
    all_lines = WordRules(enable_wildcard=True)
    assert index_with_memory(images, cache, words=all_lines).items[0].caption == "one\ntwo"
    assert opened.take() == (0, 3)
    (images / "a.txt").write_text("tags", "utf-8")
    tags = index_with_memory(images, cache, caption_extension=".txt", class_tokens="")
    assert [item.caption for item in tags.items] == ["tags", "", ""]
    assert index_with_memory(images, cache).items[0].caption == "one"


def test_one_file_serves_several_folders_and_names_that_are_no_text(images, tmp_path, opened):
    cache = tmp_path / "cache"
    other = tmp_path / "other"
    other.mkdir()
    name = os.fsdecode(b"caf\xe9\nb.png")
    try:
        captioned(other, name)
    except OSError:
        pytest.skip("this file system wants names that are text")
    make_old(other)
    for folder in (images, other):
        index_with_memory(folder, cache)
    opened.take()
    assert index_with_memory(other, cache).items[0].path == other / name
    assert len(index_with_memory(images, cache).items) == 3
    assert opened.take() == (0, 0)


def test_a_damaged_memory_is_made_anew(images, tmp_path, opened):
    cache = tmp_path / "cache"
    index_with_memory(images, cache)
    (cache / FILE_NAME).write_bytes(b"no database, but some text" * 100)
    opened.take()
    index_with_memory(images, cache)
    assert opened.take() == (3, 3)
    index_with_memory(images, cache)
    assert opened.take() == (0, 0)


def test_where_nothing_can_be_kept_the_index_is_made_all_the_same(images, tmp_path):
    (tmp_path / "cache").write_text("a file, not a folder", "utf-8")
    events = []
    index = index_with_memory(images, tmp_path / "cache", events)
    assert len(index.items) == 3
    assert [type(event) for event in events] == [Notice]
    assert "cannot be remembered" in events[0].message


def test_the_memory_has_no_journal_of_its_own_after_a_write(images, tmp_path):
    cache = tmp_path / "cache"
    index_with_memory(images, cache)
    assert [path.name for path in cache.iterdir()] == [FILE_NAME]
    with sqlite3.connect(cache / FILE_NAME) as connection:
        (mode,) = connection.execute("PRAGMA journal_mode").fetchone()
    connection.close()
    assert mode == "delete"


def test_metadata_captions_come_with_remembered_headers(images, tmp_path, opened):
    metadata = Path(tmp_path / "meta.json")
    metadata.write_text('{"a.png": {"caption": "x"}, "b.png": {"caption": "y"}}', "utf-8")
    cache = tmp_path / "cache"
    for expected in ((2, 0), (0, 0)):
        index = index_with_memory(images, cache, metadata_file=metadata)
        assert [item.caption for item in index.items] == ["x", "y"]
        assert opened.take() == expected
    metadata.write_text('{"a.png": {"caption": "z"}}', "utf-8")
    (item,) = index_with_memory(images, cache, metadata_file=metadata).items
    assert item == replace(item, caption="z")


@pytest.fixture(params=["a disk that answers at once", "a disk that lets wait"])
def many(request, tmp_path, monkeypatch):
    """A folder of several parts, of which each is opened by several tasks."""
    monkeypatch.setattr(index, "_IMAGES_AT_ONCE", 7)
    monkeypatch.setattr(index, "_OPENED_AT_ONCE", 2)
    if "wait" in request.param:
        monkeypatch.setattr(index, "_AT_ONCE_S", -1.0)
    folder = tmp_path / "images"
    folder.mkdir()
    captioned(folder, *(f"{number:02d}.png" for number in range(40)))
    for number in range(0, 40, 5):
        (folder / f"{number:02d}.caption").unlink()
    make_old(folder)
    return folder


def test_changes_here_and_there_come_to_what_an_index_without_memory_sees(many, tmp_path, opened):
    cache = tmp_path / "cache"
    index_with_memory(many, cache)
    opened.take()
    picture(many / "03.png", (50, 70))
    (many / "09.png").unlink()
    (many / "10.caption").write_text("new words", "utf-8")
    (many / "11.caption").write_text("other words\nand more", "utf-8")
    (many / "12.caption").unlink()
    (many / "13.png").write_bytes(b"no picture any more")
    (many / "14.caption").write_bytes(b"\xff\xfe\xfd")
    captioned(many, "33a.png")
    picture(many / "39.png", (64, 48)).touch()
    events = []
    second = index_with_memory(many, cache, events)
    # Two headers are new, two are of files that were written again, and one is none.
    assert opened.take()[0] == 4
    plain = build_index([[SubsetSpec(image_dir=many)]], emit=lambda event: None)
    assert second == plain
    assert [entry.path.name for entry in second.rejected] == ["13.png", "14.png"]
    assert len(second.items) == 38
    assert any("several lines" in notice.what for notice in second.notices)


def test_remembered_files_that_cannot_be_asked_for_any_more_are_named(many, tmp_path, opened):
    cache = tmp_path / "cache"
    index_with_memory(many, cache)
    opened.take()
    for name in ("16.png", "18.caption"):
        (many / name).unlink()
        try:
            (many / name).symlink_to(tmp_path / "nothing")
        except OSError:
            pytest.skip("links are not allowed here")
    second = index_with_memory(many, cache)
    assert opened.take() == (0, 0)
    assert [entry.path.name for entry in second.rejected] == ["16.png", "18.png"]
    assert second == build_index([[SubsetSpec(image_dir=many)]], emit=lambda event: None)


def test_the_two_ways_of_asking_a_disk_open_the_same(many, tmp_path, opened):
    first = index_with_memory(many, tmp_path / "cache")
    assert opened.take() == (40, 32)
    assert index_with_memory(many, tmp_path / "cache") == first
    assert opened.take() == (0, 0)


def test_what_an_older_version_kept_is_dropped_and_read_again(images, tmp_path, opened):
    cache = tmp_path / "cache"
    cache.mkdir()
    with sqlite3.connect(cache / FILE_NAME) as connection:
        connection.execute("CREATE TABLE images (path BLOB PRIMARY KEY, width INTEGER)")
    connection.close()
    for expected in ((3, 3), (0, 0)):
        assert len(index_with_memory(images, cache).items) == 3
        assert opened.take() == expected
