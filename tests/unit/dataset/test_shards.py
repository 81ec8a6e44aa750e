"""Images in tar shards are read as those of a folder are; broken shards are named."""

from __future__ import annotations

import gzip
import io
import json
import os
import pickle
import tarfile
from pathlib import Path

import pytest

from sdft.cache.digests import FileVersion, read_with_digest
from sdft.cache.image_memory import image_memory
from sdft.dataset import shard_gathering, shards
from sdft.dataset.index import build_index
from sdft.dataset.object_cache import ObjectCache
from sdft.dataset.pixels import decode_rgb
from sdft.dataset.records import SubsetSpec, WordRules
from sdft.dataset.tables import ItemTable
from sdft.errors import DataError
from sdft.events import ignore
from sdft.urls import UrlPath
from tests.unit.dataset.pictures import colours

LONG = "a folder with a name that takes much space/" * 3 + "and a long name too " * 5 + ".png"


def png(side=64) -> bytes:
    file = io.BytesIO()
    colours((side, 48)).save(file, "PNG")
    return file.getvalue()


def members(num_images=4) -> dict[str, bytes]:
    files = {}
    for number in range(num_images):
        files[f"{number}.png"] = png(64 + number)
        files[f"{number}.txt"] = f"cat {number}".encode()
    return files


def tar(files, **how) -> bytes:
    """Return a shard; pairs may give a name twice, a TarInfo stands for itself."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w", **how) as archive:
        for name, one in files.items() if isinstance(files, dict) else files:
            if isinstance(one, tarfile.TarInfo):
                archive.addfile(one)
                continue
            info = tarfile.TarInfo(name)
            info.size = len(one)
            archive.addfile(info, io.BytesIO(one))
    return content.getvalue()


def put(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    # Old enough to be remembered.
    os.utime(path, ns=(10**18, 10**18))
    return path


def spec(folder: Path, **how) -> SubsetSpec:
    return SubsetSpec(**({"image_dir": folder, "caption_extension": ".txt"} | how))


def index_of(one: SubsetSpec, **how):
    return build_index([[one]], emit=ignore, **how)


def facts(index):
    return [(item.key, item.size, item.caption) for item in index.items]


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT])
def test_an_index_of_shards_is_that_of_the_unpacked_files(tmp_path, form):
    files = members() | {"deep/er/7.png": png(70), "deep/er/7.txt": b"seven", "a.b c.png": png(71)}
    files |= {"a.b c.txt": b"dots", "\u3042.png": png(72), "\u3042.txt": b"kana"}
    if form != tarfile.USTAR_FORMAT:
        files[LONG] = png(73)
        files[LONG.replace(".png", ".txt")] = b"long"
    names = sorted(files)
    chosen = sorted({name.rpartition(".")[0] for name in names})
    for number in range(2):
        stems = set(chosen[number::2])
        part = {f"./{n}": files[n] for n in names if n.rpartition(".")[0] in stems}
        put(tmp_path / "shards" / f"{number}.tar", tar(part, format=form))
    for name, content in files.items():
        put(tmp_path / "plain" / name, content)
    there, here = (index_of(spec(tmp_path / one, recursive=True)) for one in ("shards", "plain"))
    assert facts(there) == facts(here)
    assert len(there.items) == len(files) // 2
    assert (there.rejected, there.notices) == ((), ())
    for one, other in zip(there.items, here.items, strict=True):
        assert one.path.read_bytes() == other.path.read_bytes()


def test_pixels_digests_and_other_processes_read_members(tmp_path):
    put(tmp_path / "0.tar", tar(members()))
    index = index_of(spec(tmp_path))
    item = index.items[2]
    assert str(item.path) == str(tmp_path / "0.tar" / "2.png")
    assert (decode_rgb(item.path) == decode_rgb(png(66))).all()
    read = read_with_digest(item.path)
    assert read.content == png(66)
    assert read.known.version == FileVersion(
        path=item.path, size_bytes=item.file_bytes, mtime_ns=item.mtime_ns
    )
    sent = pickle.dumps(item.path)
    # A worker gets the place of one member, not the index of all.
    assert len(sent) < 1500
    assert pickle.loads(sent).read_bytes() == png(66)
    assert ItemTable.of(list(index.items))[2].path.read_bytes() == png(66)


def test_a_second_start_looks_through_no_shard_and_a_changed_one_is_seen(tmp_path, monkeypatch):
    shard = put(tmp_path / "shards" / "0.tar", tar(members()))
    kept = tmp_path / "kept"

    def indexed():
        with image_memory(tmp_path / "memory", emit=ignore) as memory:
            return facts(index_of(spec(tmp_path / "shards"), shards=kept, memory=memory))

    first = indexed()
    monkeypatch.setattr(shard_gathering, "tar_members", None)
    monkeypatch.setattr(shards.LocalShard, "read", None)
    assert indexed() == first
    monkeypatch.undo()
    put(shard, tar(members(5)))
    os.utime(shard, ns=(10**18, 10**18 + 1))
    assert len(indexed()) == 5
    (file,) = kept.iterdir()
    file.write_bytes(file.read_bytes()[:-20] + bytes(20))
    assert len(indexed()) == 5


def test_a_shard_that_changes_while_it_is_read_is_named(tmp_path):
    shard = put(tmp_path / "0.tar", tar(members()))
    item = index_of(spec(tmp_path)).items[0]
    put(shard, tar({"new.txt": b"new"} | members()))
    with pytest.raises(OSError, match="changed after it was indexed"):
        item.path.read_bytes()
    # Also where size and time are those of before.
    first, second = tar(members()), tar({"9.png": png()} | members())
    put(shard, first + bytes(len(second) - len(first)))
    item = index_of(spec(tmp_path)).items[1]
    put(shard, second)
    with pytest.raises(OSError, match="changed after it was indexed"):
        item.path.read_bytes()


def damaged(content: bytes, at: int) -> bytes:
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


WHOLE = tar({"1.png": png(), "1.txt": b"cat"})
SECOND = 512 + -(-len(png()) // 512) * 512


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "empty"),
        (b"PK\3\4" + bytes(2000), "not a tar archive"),
        (b"short", "without the mark of an end"),
        (gzip.compress(WHOLE), "it is compressed"),
        (WHOLE[:530], "cut off within 1.png"),
        (WHOLE[: SECOND + 100], "cut off"),
        (WHOLE[: SECOND + 1024], "without the mark of an end"),
        (damaged(WHOLE, SECOND + 3), f"damaged at byte {SECOND}"),
        (WHOLE + WHOLE, "more stands behind its end"),
    ],
)
def test_a_broken_shard_is_named(tmp_path, content, said):
    put(tmp_path / "bad.tar", content)
    put(tmp_path / "good.tar", WHOLE)
    with pytest.raises(DataError, match=said) as caught:
        index_of(spec(tmp_path))
    (problem,) = caught.value.problems
    assert problem.where == str(tmp_path / "bad.tar")


def test_members_that_cannot_be_used_are_told_one_by_one(tmp_path):
    link = tarfile.TarInfo("link.png")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    files = [
        ("1.png", png(65)),
        ("1.txt", b"an older one"),
        ("../out.png", png()),
        ("/root.png", png()),
        ("a\\b.png", png()),
        ("link.png", link),
        ("1.png", png(66)),
        ("1.txt", b"the last one"),
        ("2.png", b"no picture"),
        ("._1.png", b"what macOS adds"),
        ("3.png", png()),
    ]
    put(tmp_path / "0.tar", tar(files))
    index = index_of(spec(tmp_path))
    assert facts(index) == [("1.png", (66, 48), "the last one"), ("3.png", (64, 48), "")]
    reasons = {str(one.path)[len(f"{tmp_path}/0.tar/") :]: one for one in index.rejected}
    assert {name: one.reason[:20] for name, one in reasons.items()} == {
        "1.png": "the name stands agai",
        "../out.png": "a name that leads ou",
        "root.png": "a name that leads ou",
        "a\\b.png": "a name that leads ou",
        "link.png": "a link, which has no",
        "2.png": "the file holds text,",
    }
    said = "\n".join(map(str, index.notices))
    assert "1 members that are no images are left out: 1.txt" in said
    assert "1 image or folder passed over, being hidden" in said


def test_captions_of_json_members_are_read_and_follow_the_separator(tmp_path):
    files = {
        "1.png": png(),
        "1.json": json.dumps({"caption": "a cat", "tags": "black, small"}).encode(),
        "2.png": png(),
        "2.txt": b"by text",
        "2.json": b"{}",
        "3.png": png(),
        "3.json": b'["no object"]',
        "4.png": png(),
        "4.json": b'{"caption": 4}',
        "5.png": png(),
        "5.json": b"{broken",
    }
    put(tmp_path / "shards" / "0.tar", tar(files))

    def indexed(separator):
        rules = WordRules(caption_separator=separator)
        one = spec(tmp_path / "shards", caption_extension=".caption", words=rules)
        with image_memory(tmp_path / "memory", emit=ignore) as memory:
            return index_of(one, memory=memory)

    first = indexed(", ")
    assert [item.caption for item in first.items] == ["a cat, black, small", "by text"]
    reasons = [one.reason.partition(" (")[0].partition(";")[0] for one in first.rejected]
    assert reasons == [
        "its caption file 3.json is no JSON object",
        "its caption file 4.json is JSON whose caption is no text",
        "its caption file 5.json is not JSON",
    ]
    said = "\n".join(map(str, first.notices))
    assert "1 caption of shards read from .txt" in said
    assert "4 captions of shards read from .json" in said
    assert indexed(" | ").items[0].caption == "a cat | black, small"


def test_keys_that_stand_in_two_shards_get_their_shards_name(tmp_path):
    put(tmp_path / "0.tar", tar(members(2)))
    put(tmp_path / "1.tar", tar({"1.png": png(90), "5.png": png(95)}))
    index = index_of(spec(tmp_path))
    keys = [item.key for item in index.items]
    assert keys == ["0.tar/0.png", "0.tar/1.png", "1.tar/1.png", "1.tar/5.png"]
    assert [item.size[0] for item in index.items] == [64, 65, 90, 95]
    assert "stand in several shards" in str(index.notices[0])


def test_pictures_beside_a_samples_image_are_told_and_not_read(tmp_path):
    put(tmp_path / "0.tar", tar({"1.png": png(), "1.txt": b"cat", "1.seg.png": png(80)}))
    index = index_of(spec(tmp_path))
    assert facts(index) == [("1.png", (64, 48), "cat")]
    assert "1 members beside their sample's image are not read: 1.seg.png" in str(index.notices)


def test_a_metadata_file_gives_captions_to_members(tmp_path):
    put(tmp_path / "shards" / "0.tar", tar(members()))
    meta = {"1": {"caption": "one"}, "3.png": {"caption": "three"}, "gone": {"caption": "x"}}
    put(tmp_path / "meta.json", json.dumps(meta).encode())
    index = index_of(spec(tmp_path / "shards", metadata_file=tmp_path / "meta.json"))
    assert facts(index) == [("1.png", (65, 48), "one"), ("3.png", (67, 48), "three")]
    assert index.items[1].path.read_bytes() == png(67)


def test_shards_beside_images_and_compressed_ones_are_told(tmp_path):
    put(tmp_path / "mixed" / "1.png", png())
    put(tmp_path / "mixed" / "backup.tar", tar(members()))
    index = index_of(spec(tmp_path / "mixed", class_tokens="cat"))
    assert [item.key for item in index.items] == ["1.png"]
    assert "1 .tar file beside images not read: backup.tar" in str(index.notices[0])
    put(tmp_path / "packed" / "0.tar.gz", gzip.compress(tar(members())))
    with pytest.raises(DataError, match=r"no images but 1 compressed archive, such as 0\.tar\.gz"):
        index_of(spec(tmp_path / "packed"))


ROOT = UrlPath("memory://pictures/shards")


def test_shards_elsewhere_are_read_once_and_kept(store, asked, tmp_path):
    files = members(30)
    store.pipe_file("/pictures/shards/0.tar", tar(files))
    cache = ObjectCache(tmp_path / "objects", 10**9)

    def indexed():
        with image_memory(tmp_path / "memory", emit=ignore) as memory:
            how = {"objects": cache, "shards": tmp_path / "kept", "memory": memory}
            return index_of(spec(ROOT), **how)

    index = indexed()
    for item in index.items:
        assert item.path.read_bytes() == files[item.key]
    assert [name for name, _ in asked] == ["/pictures/shards/0.tar"]
    assert facts(indexed()) == facts(index)
    assert len(asked) == 1
    assert str(index.items[0].path) == f"{ROOT}/0.tar/0.png"
    assert pickle.loads(pickle.dumps(index.items[0].path)).read_bytes() == files["0.png"]


def test_shards_that_do_not_fit_are_read_by_ranges_neighbours_together(store, asked, tmp_path):
    noise = os.urandom(100_000)
    files = {}
    for number in range(30):
        files |= {f"{number:02}.png": png(64 + number) + noise, f"{number:02}.txt": b"cat"}
    store.pipe_file("/pictures/shards/0.tar", tar(files))
    cache = ObjectCache(tmp_path / "objects", 500_000)
    index = index_of(spec(ROOT), objects=cache, shards=tmp_path / "kept")
    assert [item.size[0] for item in index.items] == list(range(64, 94))
    assert "more than the 500 kB that are kept" in str(index.notices)
    # The look through the shard, captions and first bytes of all pictures: no request an image.
    assert len(asked) <= 3
    asked.clear()
    assert index.items[7].path.read_bytes() == files["07.png"]
    assert asked == [("/pictures/shards/0.tar", 512 + len(files["07.png"]))]
    store.pipe_file("/pictures/shards/0.tar", tar({"new.txt": b"new"} | files))
    with pytest.raises(OSError, match="changed after it was indexed"):
        index.items[8].path.read_bytes()


def test_a_shard_elsewhere_that_is_cut_off_is_named(store, tmp_path):
    store.pipe_file("/pictures/shards/0.tar", tar(members())[:530])
    with pytest.raises(DataError, match="cut off within") as caught:
        index_of(spec(ROOT), objects=ObjectCache(tmp_path, 10**9))
    assert caught.value.problems[0].where == f"{ROOT}/0.tar"
