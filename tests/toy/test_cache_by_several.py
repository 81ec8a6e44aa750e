"""Several processes fill one cache: each picture once, and the same bytes as by one."""

from __future__ import annotations

import json

import numpy as np
import pytest

from sdft.cache.store import TensorStore
from tests.toy.in_ranks import Ground, draw_images, long
from tests.toy_model import save_toy_model

SIZES = [(128, 128), (192, 64), (64, 192), (128, 128), (256, 64)] * 4
BATCH = 2


@pytest.fixture(scope="module")
def ground(module_folder, ranks_server):
    folder = module_folder("caches")
    save_toy_model(folder / "model", seed=0, family="sd1")
    draw_images(folder / "images", SIZES)
    # The same picture once more is not encoded once more, whoever would have to.
    (folder / "images" / "twin.png").write_bytes((folder / "images" / "000.png").read_bytes())
    (folder / "images" / "twin.txt").write_text("a twin", "utf-8")
    (folder / "images" / "broken.png").write_bytes(
        (folder / "images" / "001.png").read_bytes()[:-600]
    )
    (folder / "images" / "broken.txt").write_text("broken", "utf-8")
    return Ground(folder, ranks_server)


def cache(ground, out, *, ranks, resolution_px=128, **how):
    """Fill the cache of a folder of its own; return what ran, the result, and what was encoded."""
    config = ground.write_config(
        out,
        resolution_px=resolution_px,
        cache_dir=str(out / "cache"),
        vae_batch_size=BATCH,
        max_rejected_share=0.2,
    )
    argv = ["cache-latents", str(config), "--json", "--quiet"]
    ran = ground.server.run(
        argv, ranks=ranks, log=out / "log", encodings=str(out / "encodings"), **how
    )
    encoded = []
    for rank in range(ranks):
        file = out / f"encodings.{rank}"
        encoded.append(set(file.read_text("ascii").split()) if file.exists() else set())
        file.unlink(missing_ok=True)
    result = json.loads(ran.said[0]) if ran.codes[0] == 0 else {}
    return ran, result, encoded


def contents(out):
    """Return every tensor of a cache by its key."""
    store = TensorStore(out / "cache" / "latents")
    snapshot = store.snapshot()
    keys = [snapshot.key_at(row) for row in range(len(snapshot.keys))]
    return {key: store.read(key) for key in keys}


def assert_same_cache(one, other):
    mine, its = contents(one), contents(other)
    assert mine.keys() == its.keys()
    assert [key for key in mine if not np.array_equal(mine[key], its[key])] == []


@pytest.fixture(scope="module")
def by_one(ground):
    out = ground.folder / "one"
    ran, result, encoded = cache(ground, out, ranks=1)
    ran.require(0)
    assert (result["images"], result["encoded"], result["rejected"]) == (22, 20, 1)
    assert len(encoded[0]) == 20
    return out, result, encoded[0]


@pytest.mark.parametrize("ranks", [2, long(3)])
def test_a_cache_that_several_fill_has_the_same_bytes(ground, by_one, ranks, tmp_path):
    one, its_result, all_pictures = by_one
    ran, result, encoded = cache(ground, tmp_path, ranks=ranks)
    ran.require(*[0] * ranks)
    assert ran.said[1:] == [""] * (ranks - 1)
    assert {**result, "cache": ""} == {**its_result, "cache": ""}
    assert all(encoded), "each process had a share"
    assert set.union(*encoded) == all_pictures
    assert sum(map(len, encoded)) == len(all_pictures), "none was encoded by two"
    assert len(list((tmp_path / "cache" / "latents" / "shards").iterdir())) == ranks
    assert_same_cache(one, tmp_path)
    again, result, encoded = cache(ground, tmp_path, ranks=ranks)
    again.require(*[0] * ranks)
    assert (result["encoded"], result["reused"]) == (0, 21)
    assert not any(encoded)


@pytest.mark.parametrize("dies", [long(0), 1])
def test_what_a_killed_process_left_is_done_at_the_next_start(ground, by_one, dies, tmp_path):
    one, _, all_pictures = by_one
    ran, _, first = cache(ground, tmp_path, ranks=2, kill={"rank": dies, "encoding": 3})
    assert ran.codes[dies] == -9
    assert ran.codes[1 - dies] == 76
    ran, result, second = cache(ground, tmp_path, ranks=2)
    ran.require(0, 0)
    # What the other one finished was kept; only the batch that was in work is done anew.
    kept = first[1 - dies] - set.union(*second)
    # Where the machine is busy, that can be all which it had begun.
    assert len(first[1 - dies]) - len(kept) <= BATCH
    assert kept | set.union(*second) == all_pictures
    assert result["encoded"] == len(all_pictures) - len(kept)
    assert_same_cache(one, tmp_path)


def test_too_many_broken_pictures_end_the_pass_with_one_voice(ground, tmp_path):
    config = ground.write_config(tmp_path, cache_dir=str(tmp_path / "cache"), max_rejected_share=0)
    argv = ["cache-latents", str(config), "--quiet"]
    for number in (3, 8):
        broken = tmp_path / "images" / f"{number}.png"
        broken.parent.mkdir(exist_ok=True)
        broken.write_bytes((ground.images / f"{number:03d}.png").read_bytes()[:-600])
        (broken.with_suffix(".txt")).write_text("broken", "utf-8")
    (tmp_path / "images" / "good.png").write_bytes((ground.images / "000.png").read_bytes())
    (tmp_path / "images" / "good.txt").write_text("good", "utf-8")
    file = tmp_path / "dataset.toml"
    file.write_text(file.read_text().replace(str(ground.images), str(tmp_path / "images")))
    ran = ground.server.run(argv, ranks=2, log=tmp_path / "log").require(4, 76)
    assert "2 images cannot be used; the limit is 1" in ran.said[0]
    assert ran.said[1] == ""


@pytest.mark.long
@pytest.mark.timeout(3000)
def test_two_thousand_pictures_by_two_processes_one_killed_in_between(ground, tmp_path):
    draw_images(tmp_path / "images", [(64, 64)] * 2000)
    small = Ground(tmp_path, ground.server)
    (tmp_path / "model").symlink_to(ground.model)
    slow = {"limit_s": 900, "resolution_px": 64}
    ran, _, whole = cache(small, tmp_path / "one", ranks=1, **slow)
    ran.require(0)
    ran, result, both = cache(small, tmp_path / "two", ranks=2, **slow)
    ran.require(0, 0)
    assert result["encoded"] == 2000
    assert sum(map(len, both)) == len(whole[0]) == 2000
    assert_same_cache(tmp_path / "one", tmp_path / "two")
    kill = {"rank": 1, "encoding": 250}
    ran, _, first = cache(small, tmp_path / "three", ranks=2, kill=kill, **slow)
    assert ran.codes == [76, -9]
    ran, result, second = cache(small, tmp_path / "three", ranks=2, **slow)
    ran.require(0, 0)
    assert len(first[0] & set.union(*second)) <= BATCH
    assert 0 < result["encoded"] < 2000
    assert_same_cache(tmp_path / "one", tmp_path / "three")
