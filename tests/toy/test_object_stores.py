"""Whole jobs on images of an S3-speaking server: few requests, patience, and no secret anywhere."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
import time
from io import BytesIO

import numpy as np
import pyarrow
import pytest
from PIL import Image
from pyarrow import parquet
from s3fs import S3FileSystem

from sdft.cache.image_memory import image_memory
from sdft.dataset import drivers
from sdft.dataset.index import build_index
from sdft.dataset.object_cache import ObjectCache
from sdft.dataset.records import SubsetSpec
from sdft.events import ignore
from sdft.urls import UrlPath
from tests.toy.s3_server import BUCKET, serving

# moto and botocore use what newer Pythons call old.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

SECRET = "wJalrXUtnFEMIK7MDENGbPxRfiCYEXAMPLEKEY"
KEY_ID = "AKIAIOSFODNN7EXAMPLE"
TOKEN = "FwoGZXIvYXdzEXAMPLESESSIONTOKEN"
ROOT = f"s3://{BUCKET}/cats"


@pytest.fixture(scope="module")
def whole_server():
    with serving() as server:
        yield server


@pytest.fixture
def server(whole_server, monkeypatch):
    whole_server.clear()
    for name, value in credentials(whole_server).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(drivers, "FIRST_WAIT_S", 0.01)
    drivers.system_of.cache_clear()
    # Its own cache knows nothing of the port, which another file's server had.
    S3FileSystem.clear_instance_cache()
    return whole_server


def credentials(server):
    return {
        "AWS_ACCESS_KEY_ID": KEY_ID,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_SESSION_TOKEN": TOKEN,
        "AWS_ENDPOINT_URL": server.url,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }


def picture(number, size=(16, 16)):
    file = BytesIO()
    pixels = np.random.default_rng(number).integers(0, 255, (size[1], size[0], 3), np.uint8)
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def index_of(tmp_path, *, shards=None, **how):
    spec = SubsetSpec(image_dir=UrlPath(ROOT), caption_extension=".txt", **how)
    cache = ObjectCache(tmp_path / "objects", 10**9)
    with image_memory(tmp_path / "memory", emit=ignore) as memory:
        return build_index([[spec]], emit=ignore, objects=cache, memory=memory, shards=shards)


def require_few_requests(server, tmp_path, num_images, *, captions):
    """Index all, read all, and start again; count what the server is asked for."""
    num_objects = num_images * (2 if captions else 1)
    pages = -(-num_objects // 1000)
    how = {"recursive": True} | ({} if captions else {"class_tokens": "a cat"})
    index = index_of(tmp_path, **how)
    assert len(index.items) == num_images
    for item in index.items:
        item.path.read_bytes()
    assert server.num_lists == pages
    assert server.num_reads == num_objects
    assert max(server.asked[name] for name in server.asked if name.startswith("GET ")) == 1
    # Nothing else: no HEAD, no request an object.
    assert server.num_requests == pages + num_objects
    again = index_of(tmp_path, **how)
    assert list(again.items) == list(index.items)
    assert server.num_requests == 2 * pages + num_objects


def test_few_images_are_listed_and_kept_with_few_requests(server, tmp_path):
    for number in range(120):
        server.put(f"cats/{number % 7}/{number}.png", picture(number))
        server.put(f"cats/{number % 7}/{number}.txt", f"cat {number}".encode())
    require_few_requests(server, tmp_path, 120, captions=True)


@pytest.mark.long
def test_5000_images_are_listed_and_kept_with_few_requests(server, tmp_path):
    for number in range(5000):
        server.put(f"cats/{number}.png", picture(number))
    require_few_requests(server, tmp_path, 5000, captions=False)


def test_a_read_that_the_server_refuses_twice_succeeds(server, tmp_path):
    for number in range(3):
        server.put(f"cats/{number}.png", picture(number))
    # Once in the reading of many, then alone.
    server.faults["cats/1.png"] = 3
    index = index_of(tmp_path, class_tokens="a cat")
    assert (len(index.items), index.rejected) == (3, ())
    assert server.asked["GET cats/1.png"] == 4
    assert str(index.notices).count("1.png was not read at once and is tried again") == 2


def test_a_listing_that_the_server_refuses_twice_succeeds(server, tmp_path):
    server.put("cats/1.png", picture(1))
    server.faults[""] = 2
    assert len(index_of(tmp_path, class_tokens="a cat").items) == 1
    assert server.num_lists == 3


def test_tar_shards_of_a_store_are_read_once_and_then_not_at_all(server, tmp_path):
    contents = [picture(number) for number in range(240)]
    for shard in range(4):
        packed = BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as archive:
            for number in range(shard, 240, 4):
                for name, content in ((".png", contents[number]), (".txt", b"a cat")):
                    info = tarfile.TarInfo(f"{number:03}{name}")
                    info.size = len(content)
                    archive.addfile(info, BytesIO(content))
        server.put(f"cats/{shard}.tar", packed.getvalue())
    server.faults["cats/2.tar"] = 2
    index = index_of(tmp_path, shards=tmp_path / "kept")
    assert [item.path.read_bytes() for item in index.items] == contents
    assert {item.caption for item in index.items} == {"a cat"}
    assert str(index.notices).count("2.tar was not read at once and is tried again") == 2
    # One listing, each shard once, and what the server refused.
    assert (server.num_lists, server.num_requests) == (1, 1 + 4 + 2)
    again = index_of(tmp_path, shards=tmp_path / "kept")
    assert list(again.items) == list(index.items)
    assert server.num_requests == 1 + 4 + 2 + 1
    # A packed-in anew shard is another object.
    server.put("cats/3.tar", packed.getvalue() + bytes(512))
    index_of(tmp_path, shards=tmp_path / "kept")
    assert server.asked["GET cats/3.tar"] == 2
    assert server.num_requests == 1 + 4 + 2 + 1 + 2


def test_sizes_of_a_parquet_file_spare_the_read_of_every_image(server, tmp_path):
    for number in range(30):
        server.put(f"cats/{number:02}.png", picture(number))
    columns = {
        "image_path": [f"{number:02}" for number in range(30)],
        "caption": ["a cat"] * 30,
        "image_size": [[16, 16]] * 30,
    }
    file = BytesIO()
    parquet.write_table(pyarrow.table(columns), file)
    server.put("meta.parquet", file.getvalue())
    index = index_of(tmp_path, metadata_file=UrlPath(f"s3://{BUCKET}/meta.parquet"))
    assert {(item.size, item.caption) for item in index.items} == {((16, 16), "a cat")}
    assert len(index.items) == 30
    # The listing, the metadata file's state and its content.
    assert (server.num_lists, server.num_requests) == (1, 3)
    assert index.items[3].path.read_bytes() == picture(3)


def command(server, *argv, where):
    environment = os.environ | credentials(server)
    done = subprocess.run(
        [sys.executable, "-m", "sdft", *map(str, argv)],
        capture_output=True,
        cwd=where,
        env=environment,
        check=False,
    )
    return done.returncode, (done.stdout + done.stderr).decode()


def require_no_secret(folder, *texts):
    files = [file for file in folder.rglob("*") if file.is_file()]
    assert files
    for content in [*(file.read_bytes() for file in files), *(text.encode() for text in texts)]:
        for secret in (SECRET, KEY_ID, TOKEN):
            assert secret.encode() not in content


def dataset_file(folder, **keys):
    lines = "".join(f"{name} = {json.dumps(value)}\n" for name, value in keys.items())
    text = (
        "[[datasets]]\nresolution = 64\nmin_bucket_reso = 64\nenable_bucket = true\n"
        f"[[datasets.subsets]]\nimage_dir = '{ROOT}'\ncaption_extension = '.txt'\n{lines}"
    )
    file = folder / "remote.toml"
    file.write_text(text, "utf-8")
    return file


def test_training_from_and_to_an_object_store_leaves_no_secret(
    server, tmp_path, toy, latents, capfd
):
    for number in range(4):
        server.put(f"cats/{number}.png", picture(number, (96, 64)))
        server.put(f"cats/{number}.txt", b"a cat")
    server.faults["cats/2.png"] = 3
    run_file = dataset_file(tmp_path, color_aug=True)
    # The driver itself sends again what a store refuses in passing.
    server.faults["models/toy.safetensors"] = 2
    run = toy(
        dataset_config=str(run_file),
        output_dir=f"s3://{BUCKET}/models",
        max_train_steps=2,
        max_data_loader_n_workers=0,
        save_state_on_train_end=True,
    )
    assert run.error is None
    assert len(run.losses) == 2
    stored = server.contents()
    said = stored["models/toy.run/events.jsonl"].decode("ascii")
    assert "is tried again" in said
    assert server.asked["PUT models/toy.safetensors"] == 3
    assert "models/toy.run/states/step00000002/manifest.json" in stored
    assert str(run.result.checkpoint) == f"s3://{BUCKET}/models/toy.safetensors"
    assert f"{ROOT}/2.png" in said
    # All that the objects are asked for is their content, once.
    assert server.num_reads == 8 + 3
    require_no_secret(tmp_path, *capfd.readouterr())
    require_no_secret(latents / "outputs")
    for content in stored.values():
        assert not any(secret.encode() in content for secret in (SECRET, KEY_ID, TOKEN))


def lay_out(prepared, folder):
    """Copy the toy's files, without its length in epochs."""
    shutil.copytree(prepared, folder)
    file = folder / "config.toml"
    lines = file.read_text("utf-8").splitlines()
    kept = [line for line in lines if not line.startswith("max_train_epochs")]
    file.write_text("\n".join(kept), "utf-8")
    return folder


def losses_of(events):
    found = [json.loads(line) for line in events.splitlines()]
    return {one["step"]: one["loss"] for one in found if one["event"] == "StepDone"}


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_killed_run_goes_on_from_the_store_on_another_machine(server, tmp_path, prepared):
    here = lay_out(prepared, tmp_path / "machine")
    argv = ["train", "config.toml", "--output_name", "toy", "--max_train_steps", "8"]
    argv += ["--lr_scheduler", "constant", "--rolling_state_steps", "2", "--device", "cpu"]
    stored = [*argv, "--output_dir", f"s3://{BUCKET}/models"]
    server.put("anything", b"so that there is a bucket")
    environment = os.environ | credentials(server)
    line = [sys.executable, "-m", "sdft", *stored]
    with (
        (tmp_path / "log").open("wb") as log,
        subprocess.Popen(line, cwd=here, env=environment, stdout=log, stderr=log) as process,
    ):
        try:
            while not server.holds("models/toy.run/states/step00000004/manifest.json"):
                assert process.poll() is None, (tmp_path / "log").read_text("utf-8")
                time.sleep(0.01)
        finally:
            process.kill()
    # Another machine has the images and the model at the same places, and nothing of the run.
    shutil.rmtree(here)
    lay_out(prepared, here)
    code, said = command(server, *stored, where=here)
    assert (code, "--resume auto" in said) == (2, True), said
    code, said = command(server, *stored, "--resume", "auto", where=here)
    assert code == 0, said
    assert "going on from step" in said
    assert command(server, *argv, "--output_dir", "out", where=here)[0] == 0
    there = server.contents()
    plain = losses_of((here / "out" / "toy.run" / "events.jsonl").read_bytes())
    assert len(plain) == 8
    assert losses_of(there["models/toy.run/events.jsonl"]) == plain
    assert json.loads(there["models/toy.run/run.json"])["state"] == "finished"
    assert "models/toy.safetensors" in there
    assert not [key for key in there if "/states/" in key]
    require_no_secret(tmp_path)


def test_a_refusal_that_names_the_key_is_told_without_it(server, tmp_path):
    server.put("cats/1.png", picture(1))
    server.forbidden = f"the key {KEY_ID} with {SECRET} and {TOKEN} is not known"
    dataset_file(tmp_path)
    code, said = command(server, "bucket", "remote.toml", where=tmp_path)
    assert code == 4, said
    assert "no access" in said
    require_no_secret(tmp_path, said)


def test_a_url_with_a_password_is_refused_without_repeating_it(server, tmp_path):
    dataset_file(tmp_path)
    text = (tmp_path / "remote.toml").read_text("utf-8")
    text = text.replace("s3://", f"s3://{KEY_ID}:{SECRET}@")
    (tmp_path / "remote.toml").write_text(text, "utf-8")
    code, said = command(server, "bucket", "remote.toml", where=tmp_path)
    assert code == 2
    assert "passwords and signatures stand" in said
    assert SECRET not in said
