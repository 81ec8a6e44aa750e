"""A start on a full cache takes short cuts; it comes to the same as one that takes none.

The golden digests are of what the straight way gave, one record at a time: the keys of latents,
the data's digest that a resumed run compares, and the fates.
"""

import gzip
import json
import os
import shutil
import time
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import numpy as np
import pytest

from sdft.cache.digests import FileDigests, FileVersion, KnownFile
from sdft.cache.keys import LatentRecipe, digest_of
from sdft.cache.latents import LatentRules, cache_latents
from sdft.cache.store import TensorStore
from sdft.cache.writer import StoreWriter
from sdft.config.folders import cache_folder
from sdft.config.load import load_config
from sdft.dataset.report import fates, write_fates
from sdft.events import ignore
from sdft.jobs.sources import loss_weights, picture_rules, plan_dataset, word_rules
from sdft.jobs.training.data import training_data
from sdft.jobs.training.item_record import write_items
from sdft.train.sampler import Order
from tests.unit.dataset.pictures import picture

RECIPE = LatentRecipe(vae_digest="vae", vae_dtype="fp32", kind="sample", dtype="fp16")
OLD_S = time.time() - 1000

TOML = """
[general]
caption_extension = ".txt"
resolution = [128, 96]
enable_bucket = true
min_bucket_reso = 64
max_bucket_reso = 192
batch_size = 3

[[datasets]]
  [[datasets.subsets]]
  image_dir = 'a'
  recursive = true
  flip_aug = true
  num_repeats = 2
  [[datasets.subsets]]
  image_dir = 'b'
  class_tokens = 'a "thing"'
  resize_interpolation = 'lanczos'
  [[datasets.subsets]]
  image_dir = 'reg'
  is_reg = true
  class_tokens = 'any'

[[datasets]]
bucket_no_upscale = true
batch_size = 2
  [[datasets.subsets]]
  image_dir = 'b'
  metadata_file = 'meta.json'
"""

RULES = {(0, 0): LatentRules(flip=True), (0, 1): LatentRules(interpolation="lanczos")}

GOLDEN = {
    "items": "34a50fed9529efccb5a299b1a5fe601f",
    "fates": "488092c211a3e9994225ec0aab41df45",
    "keys": "a283de7e32be5a3c132b0d7b3847e77d",
    "data": "a8a85ebc353be2bd8ea326e2756c1fe0",
    "record": "2ae2efc4b767de122dd365d49e946729",
    "steps": "ab30aa0cbdbe1ec4b2143f9fb872bd80",
}


def varied(folder: Path) -> None:
    """Write folders of pictures of many sizes, with words, without, and some that are broken."""
    rng = np.random.default_rng(3)
    for name in ("a", "a/in/side", "b", "reg"):
        for number in range(11 if name != "reg" else 4):
            width, height = rng.integers(40, 400, 2)
            # In an order that is not that of the numbers; some names are no ASCII.
            stem = f"{number * 7 % 11:02d}{'' if number % 3 else ' 絵 _0_1_2_3'}"
            path = picture(
                folder / name / f"{stem}.{'PNG' if number % 2 else 'png'}",
                (int(width), int(height)),
            )
            if name == "a" or number % 2:
                path.with_suffix(".txt").write_text(f'words {number}, "quoted"\n\nmore', "utf-8")
    (folder / "a" / "broken.png").write_bytes(b"no picture")
    (folder / "a" / "no utf8.txt").write_bytes(b"\xff\xfe\xfd")
    picture(folder / "a" / "no utf8.png")
    picture(folder / "b" / "thin.png", (200, 5))
    (folder / "a" / ".hidden.png").write_bytes(b"")
    entries = {f"{number:02d}": {"caption": f"meta {number}"} for number in (1, 2, 4, 5, 10)}
    (folder / "meta.json").write_text(json.dumps(entries), "utf-8")
    (folder / "dataset.toml").write_text(TOML, "utf-8")
    for path in folder.rglob("*.*"):
        os.utime(path, (OLD_S, OLD_S))


@dataclass
class Start:
    """What a start came to."""

    items: list
    fates: str
    keys: list
    digest: str
    record: bytes
    steps: list
    first_latents: bytes


def start(folder: Path, *, fill: bool = False) -> Start:
    config = load_config(folder / "dataset.toml", {}, folder)
    planned = plan_dataset(config, emit=ignore)
    cache = cache_folder(config)
    if fill:
        remember(folder, planned.plan.placements, cache)
    store = TensorStore(cache / "latents")
    with FileDigests(cache / "digests.sqlite") as digests:
        result = cache_latents(
            planned.plan,
            store=store,
            digests=digests,
            recipe=RECIPE,
            rules=RULES,
            load_encoder=lambda: pytest.fail("everything is there"),
        )
    file = folder / "fates.jsonl"
    count = write_fates(file, planned.index, planned.plan, planned.rejected)
    text = file.read_text("ascii")
    rows = list(fates(planned.index, planned.plan, planned.rejected))
    assert text == "".join(json.dumps(row) + "\n" for row in rows)
    assert count == len(rows)
    data = training_data(
        planned.plan.placements,
        result.keys,
        words=word_rules(config.datasets),
        pictures=picture_rules(config.datasets),
        loss_weights=loss_weights(config.datasets, 0.5),
        batch_size=planned.batch_sizes,
        masks=[None if number % 5 else "mask" for number in range(len(planned.plan.placements))],
    )
    write_items(folder / "items", data)
    order = Order(groups=data.groups, effective_batch=planned.batch_sizes, seed=1)
    steps = [(step.bucket, step.uses) for step in order.epoch(1)]
    item = data.items[steps[0][1][0].placement]
    return Start(
        items=list(planned.index.items),
        fates=text.replace(json.dumps(str(folder))[1:-1], "FOLDER"),
        keys=[(one.plain, one.flipped) for one in result.keys],
        digest=data.digest,
        record=gzip.decompress((folder / "items" / f"{data.digest}.jsonl.gz").read_bytes()),
        steps=steps,
        first_latents=store.read(item.latents or "").tobytes(),
    )


def remember(folder: Path, placements, cache: Path) -> None:
    """Fill the cache as an encoder would; digests are made up, so that they never change."""
    store = TensorStore(cache / "latents")
    with FileDigests(cache / "digests.sqlite") as digests, StoreWriter(store) as writer:
        for number, placement in enumerate(placements):
            item = placement.item
            digest = digest_of(item.path.relative_to(folder).as_posix())
            version = FileVersion(
                path=item.path, size_bytes=item.file_bytes, mtime_ns=item.mtime_ns
            )
            digests.remember(KnownFile(version=version, digest=digest))
            rules = RULES.get((item.dataset, item.subset), LatentRules())
            for flip in (False, True)[: 1 + rules.flip]:
                key = RECIPE.key(
                    image_digest=digest,
                    resized=placement.resized,
                    crop=placement.crop,
                    flip=flip,
                    interpolation=rules.interpolation,
                )
                width, height = placement.bucket
                values = np.full((4, height // 8, width // 8), number, np.float32)
                writer.add(key, values, "fp16")


def digest_of_text(value: object) -> str:
    return blake2b(repr(value).encode("utf-8"), digest_size=16).hexdigest()


def test_a_second_start_comes_to_the_same_bits_as_the_straight_way(tmp_path):
    varied(tmp_path)
    first = start(tmp_path, fill=True)
    shutil.rmtree(tmp_path / "items")
    assert start(tmp_path) == first
    assert {
        "items": digest_of_text(
            [(one.key, one.size, one.caption, one.num_repeats) for one in first.items]
        ),
        "fates": digest_of_text(first.fates),
        "keys": digest_of_text(first.keys),
        "data": first.digest,
        "record": digest_of_text(first.record),
        "steps": digest_of_text(first.steps),
    } == GOLDEN
