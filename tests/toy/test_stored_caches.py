"""Latents, contexts and what is known of images, kept in an object store and found by others."""

from __future__ import annotations

import json
import shutil
import tarfile
from io import BytesIO

import pytest

from tests.toy.test_object_stores import (
    dataset_file,
    picture,
    require_no_secret,
    server,
    whole_server,
)
from tests.toy.toy_runs import CONSTANT

__all__ = ["server", "whole_server"]

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

CACHE = "s3://pictures/cache"


def fill(server, num_images):
    for number in range(num_images):
        server.put(f"cats/{number:02}.png", picture(number, (96, 64)))
        server.put(f"cats/{number:02}.txt", f"cat {number}".encode())


def train(toy, folder, name, **how):
    run = toy(
        name,
        dataset_config=str(folder / "remote.toml"),
        max_train_steps=3,
        no_rolling_state=True,
        max_data_loader_n_workers=0,
        **CONSTANT,
        **how,
    )
    assert run.error is None, run.error
    return run


def of_images(server):
    return sum(count for name, count in server.asked.items() if " cats/" in name)


def test_another_machine_trains_from_the_cache_of_one_without_reading_an_image(
    server, tmp_path, toy
):
    fill(server, 12)
    dataset_file(tmp_path)
    plain = train(toy, tmp_path, "plain", cache_dir=str(tmp_path / "here"))
    server.asked.clear()
    first = train(toy, tmp_path, "first", cache_dir=CACHE)
    assert of_images(server) == 24
    stored = [name for name in server.contents() if name.startswith("cache/")]
    kinds = {name.split("/")[1] for name in stored}
    assert kinds == {"latents", "contexts", "digests.sqlite", "seen.sqlite"}
    latents = [name for name in stored if name.startswith("cache/latents/shards/")]
    (local,) = (tmp_path / "here" / "latents" / "shards").iterdir()
    assert [server.contents()[name] for name in latents] == [local.read_bytes()]
    # Another machine has nothing of what was kept here.
    shutil.rmtree(tmp_path / ".sdft-cache")
    server.asked.clear()
    second = train(toy, tmp_path, "second", cache_dir=CACHE)
    assert of_images(server) == 0
    # What it may ask for: listings and states, two tables, headers, the tensors of three steps.
    num_read = 3 + 3 + 2 + 2
    assert server.num_reads <= num_read
    assert server.num_requests <= num_read + 20
    # And the next start there hardly anything.
    server.asked.clear()
    third = train(toy, tmp_path, "third", cache_dir=CACHE)
    assert server.num_reads == 0
    assert first.losses == second.losses == third.losses == plain.losses
    require_no_secret(tmp_path / ".sdft-cache")
    said = json.dumps([str(event) for event in second.events])
    assert f"latents are kept in {CACHE}" in said


def test_indexes_of_shards_are_found_by_another_machine(server, tmp_path, toy):
    packed = BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for number in range(6):
            for name, content in ((".png", picture(number, (96, 64))), (".txt", b"a cat")):
                info = tarfile.TarInfo(f"{number:03}{name}")
                info.size = len(content)
                archive.addfile(info, BytesIO(content))
    server.put("cats/0.tar", packed.getvalue())
    dataset_file(tmp_path)
    train(toy, tmp_path, "first", cache_dir=CACHE)
    assert server.asked["GET cats/0.tar"] > 0
    shutil.rmtree(tmp_path / ".sdft-cache")
    server.asked.clear()
    train(toy, tmp_path, "second", cache_dir=CACHE)
    assert of_images(server) == 0
