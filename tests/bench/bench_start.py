"""Prints what the second start on cached images costs, stage by stage, until the first batch.

The images are tiny and most of them are further names of one file, but the whole way is the true
one: listing, index, buckets, keys of latents, order of steps, first batch. Latents are zeros of
few cells. Everything runs in a process of its own, since its memory is measured; imports do not
count.

python tests/bench/bench_start.py [number of images] [--no-captions]
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import numpy as np
import psutil
from PIL import Image

from sdft.cache.digests import FileDigests, FileVersion, KnownFile
from sdft.cache.keys import LatentRecipe, digest_of
from sdft.cache.latents import cache_latents
from sdft.cache.store import TensorStore
from sdft.cache.writer import StoreWriter
from sdft.config.folders import cache_folder
from sdft.config.load import Config, load_config
from sdft.dataset.report import write_fates
from sdft.dataset.tables import PlacementTable
from sdft.events import ignore
from sdft.formats.caption_reader import CaptionReader
from sdft.formats.clip_tokens import ClipTokenizer
from sdft.jobs.sources import loss_weights, picture_rules, plan_dataset, word_rules
from sdft.jobs.training.data import training_data
from sdft.jobs.training.item_record import items_job
from sdft.train.background import BackgroundWriter
from sdft.train.batch import BatchMaker
from sdft.train.latents import LatentSource
from sdft.train.noise import NoiseRecipe
from sdft.train.sampler import Order

RECIPE = LatentRecipe(vae_digest="vae", vae_dtype="fp32", kind="sample", dtype="fp16")
BATCH_SIZE = 4
NAMES_OF_A_FILE = 100
"""So that sizes vary as those of collected pictures do; many are equal there too."""

DATASET = """
[general]
resolution = 128
enable_bucket = true
min_bucket_reso = 64
max_bucket_reso = 256
batch_size = {batch}
caption_extension = ".txt"
{class_tokens}
[[datasets]]
  [[datasets.subsets]]
  image_dir = 'images'
"""


def config_of(folder: Path) -> Config:
    return load_config(folder / "dataset.toml", {}, folder)


def prepare(folder: Path, num_images: int, *, captions: bool) -> None:
    """Write the images and fill the caches, as a first start would leave them."""
    images = folder / "images"
    images.mkdir()
    rng = np.random.default_rng(0)
    old_s = time.time() - 1000
    for start in range(0, num_images, NAMES_OF_A_FILE):
        first = images / f"{start:07d}.png"
        width, height = rng.integers(96, 320, 2)
        Image.new("L", (int(width), int(height))).save(first)
        os.utime(first, (old_s, old_s))
        for number in range(start, min(start + NAMES_OF_A_FILE, num_images)):
            if number > start:
                os.link(first, images / f"{number:07d}.png")
            if captions:
                text = images / f"{number:07d}.txt"
                text.write_text(f"a girl, number {number}, stage, smile, blue sky", "utf-8")
                os.utime(text, (old_s, old_s))
    tokens = "" if captions else "class_tokens = 'a girl on a stage'"
    toml = DATASET.format(batch=BATCH_SIZE, class_tokens=tokens)
    (folder / "dataset.toml").write_text(toml, "utf-8")
    config = config_of(folder)
    planned = plan_dataset(config, emit=ignore)
    store = TensorStore(cache_folder(config) / "latents")
    digests = FileDigests(cache_folder(config) / "digests.sqlite")
    with digests, StoreWriter(store) as writer:
        for number, placement in enumerate(planned.plan.placements):
            digest, item = digest_of(number), placement.item
            version = FileVersion(
                path=item.path, size_bytes=item.file_bytes, mtime_ns=item.mtime_ns
            )
            digests.remember(KnownFile(version=version, digest=digest))
            key = RECIPE.key(
                image_digest=digest,
                resized=placement.resized,
                crop=placement.crop,
                flip=False,
                interpolation=None,
            )
            width, height = placement.bucket
            writer.add(key, np.zeros((4, height // 8, width // 8), np.float32), "fp16")


def start_again(folder: Path) -> None:
    """Do what a training command does before its first step, the model left out."""
    before_bytes = peak_bytes()
    tokenizer = ClipTokenizer(family_padding="eos")
    clock = Clock()
    config = config_of(folder)
    clock.lap("config")
    planned = plan_dataset(config, emit=ignore)
    clock.lap("index and buckets")
    placements = PlacementTable.of(planned.plan.placements)
    store = TensorStore(cache_folder(config) / "latents")
    with FileDigests(cache_folder(config) / "digests.sqlite") as digests:
        latents = cache_latents(
            planned.plan,
            store=store,
            digests=digests,
            recipe=RECIPE,
            rules={},
            load_encoder=lambda: sys.exit("something is missing"),
        )
    clock.lap("keys of latents")
    write_fates(folder / "fates.jsonl", planned.index, planned.plan, planned.rejected)
    clock.lap("fates")
    data = training_data(
        placements,
        latents.keys,
        words=word_rules(config.datasets),
        pictures=picture_rules(config.datasets),
        loss_weights=loss_weights(config.datasets, 1.0),
        batch_size=planned.batch_sizes,
        masks=(None,) * len(placements),
    )
    clock.lap("items and groups")
    # As a run does: beside the first steps.
    writer = BackgroundWriter(emit=ignore)
    writer.submit([items_job(folder / "items", data)])
    order = Order(groups=data.groups, effective_batch=planned.batch_sizes, seed=1)
    step = next(iter(order.epoch(1)))
    clock.lap("order of the epoch")
    maker = BatchMaker(
        items=data.items,
        latents=LatentSource(read_latents=store.read, holds_moments=False),
        reader=CaptionReader(tokenizer=tokenizer),
        read_mask=None,
        seed=1,
        noise=NoiseRecipe(),
        min_timestep=0,
        max_timestep=1000,
        max_train_steps=1,
    )
    batch = maker.make(step, step.uses, step_number=0)
    clock.lap("first batch")
    writer.wait()
    assert len(batch) <= BATCH_SIZE
    clock.tell(f"{len(placements)} cached images")
    print(f"peak {peak_bytes() / 1e9:.2f} GB, of which imports {before_bytes / 1e9:.2f} GB")


class Clock:
    """Takes the time of one stage after the other."""

    def __init__(self) -> None:
        self._last = (time.perf_counter(), time.process_time())
        self._laps: list[tuple[str, float, float]] = []

    def lap(self, name: str) -> None:
        now = (time.perf_counter(), time.process_time())
        self._laps.append((name, now[0] - self._last[0], now[1] - self._last[1]))
        self._last = now

    def tell(self, title: str) -> None:
        laps = [
            *self._laps,
            ("all", sum(a for _, a, _ in self._laps), sum(b for *_, b in self._laps)),
        ]
        print(f"{title}: seconds until the first batch, and of them processor time of all threads")
        for name, duration_s, busy_s in laps:
            print(f"  {name:20} {duration_s:6.2f}  {busy_s:6.2f}")


def peak_bytes() -> int:
    """Return the largest memory of this process; getrusage would count its parent's as well."""
    memory = psutil.Process().memory_info()
    if hasattr(memory, "peak_wset"):
        return int(memory.peak_wset)
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return 1024 * int(status.partition("VmHWM:")[2].split()[0])


def main(arguments: list[str]) -> None:
    if arguments[:1] == ["--in"]:
        start_again(Path(arguments[1]))
        return
    numbers = [int(one) for one in arguments if one.isdigit()]
    with tempfile.TemporaryDirectory() as name:
        prepare(
            Path(name),
            numbers[0] if numbers else 100_000,
            captions="--no-captions" not in arguments,
        )
        subprocess.run([sys.executable, __file__, "--in", name], check=True)


if __name__ == "__main__":
    main(sys.argv[1:])
