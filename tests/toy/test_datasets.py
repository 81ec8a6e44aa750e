"""Several datasets in one run, latents of sd-scripts, caches that are cleaned up."""

import tarfile

import numpy as np

from sdft.config.load import load_config
from sdft.events import Notice, StepDone, ignore
from sdft.jobs.cache_latents import run_cache_latents
from sdft.jobs.sources import plan_dataset


def config_of(tmp_path, **flags):
    return load_config(tmp_path / "config.toml", {"device": "cpu"} | flags, tmp_path)


def test_datasets_of_several_resolutions_and_batch_sizes_share_a_run(prepare, tmp_path):
    toy = prepare(
        "",
        "[[datasets]]",
        "resolution = 128",
        "min_bucket_reso = 128",
        "max_bucket_reso = 128",
        "batch_size = 2",
        "[[datasets.subsets]]",
        "image_dir = 'images'",
    )
    run = toy(max_train_epochs=1, max_train_steps=1)
    assert run.error is None
    steps = run.of(StepDone)
    assert sum(one.items for one in steps) == 9 * 2 + 9
    small = [one for one in steps if one.bucket == (128, 128)]
    assert max(one.items for one in small) >= 2
    assert len({one.bucket for one in steps}) > 1


def write_npz(placements):
    for placement in placements:
        width, height = placement.bucket
        rng = np.random.default_rng(1)
        np.savez(
            placement.item.path.with_suffix(".npz"),
            latents=rng.standard_normal((4, height // 8, width // 8)).astype(np.float32),
            original_size=np.array(placement.item.size),
            crop_ltrb=np.zeros(4),
        )


def test_latents_that_sd_scripts_left_are_taken_where_they_fit(prepare, tmp_path):
    toy = prepare()
    placements = plan_dataset(config_of(tmp_path), emit=ignore).plan.placements
    write_npz(placements)
    plain = toy("plain", max_train_steps=2)
    taken = toy(
        "taken", max_train_steps=2, cache_latents_to_disk=True, cache_dir=str(tmp_path / "own")
    )
    assert plain.error is taken.error is None
    assert plain.losses != taken.losses
    assert any("which VAE made it" in one.message for one in taken.of(Notice))
    again = run_cache_latents(
        config_of(tmp_path, cache_latents_to_disk=True, cache_dir=str(tmp_path / "own")),
        emit=ignore,
    )
    assert (again.encoded, again.reused) == (0, 9)
    broken = placements[0].item.path.with_suffix(".npz")
    broken.write_bytes(b"no archive")
    said = []
    mended = run_cache_latents(
        config_of(tmp_path, cache_latents_to_disk=True, cache_dir=str(tmp_path / "own")),
        emit=said.append,
    )
    assert (mended.encoded, mended.reused) == (1, 8)
    assert any(broken.name in one.message for one in said if isinstance(one, Notice))


def test_a_cache_shows_what_it_no_longer_needs_before_it_lets_go(prepare, tmp_path):
    prepare()
    cache = str(tmp_path / "own")
    whole = run_cache_latents(config_of(tmp_path, cache_dir=cache), emit=ignore, prune_cache=True)
    assert (whole.encoded, whole.prunable.entries, whole.prunable.kept) == (9, 0, 9)
    removed = sorted((tmp_path / "images").glob("*.png"))[0]
    removed.unlink()
    config = config_of(tmp_path, cache_dir=cache)
    shown = run_cache_latents(config, emit=ignore, prune_cache=True)
    assert (shown.prunable.entries, shown.prunable.kept, shown.prunable.done) == (1, 8, False)
    done = run_cache_latents(config, emit=ignore, prune_cache=True, delete=True)
    assert (done.prunable.entries, done.prunable.done) == (1, True)
    after = run_cache_latents(config, emit=ignore, prune_cache=True)
    assert (after.encoded, after.reused, after.prunable.entries) == (0, 8, 0)


def pack(tmp_path):
    """Put the toy's images into two shards, and name their folder in the dataset file."""
    (tmp_path / "shards").mkdir()
    files = sorted((tmp_path / "images").iterdir())
    for number in range(2):
        with tarfile.open(tmp_path / "shards" / f"{number}.tar", "w") as archive:
            for file in files:
                if files.index(file) // 2 % 2 == number:
                    archive.add(file, file.name)
    dataset = tmp_path / "dataset.toml"
    text = dataset.read_text("utf-8").replace("images", "shards")
    dataset.write_text(text, "utf-8")


def test_tar_shards_train_to_the_same_bits_as_their_files(prepare, tmp_path):
    toy = prepare()
    cache = str(tmp_path / "own")
    plain = toy("plain", max_train_steps=3, cache_dir=cache)
    pack(tmp_path)
    packed = toy("packed", max_train_steps=3, cache_dir=str(tmp_path / "anew"))
    assert plain.error is packed.error is None
    assert len(plain.losses) == 3
    assert packed.losses == plain.losses
    assert [one.bucket for one in packed.of(StepDone)] == [one.bucket for one in plain.of(StepDone)]
    # The same keys too: what was encoded of files serves the shards.
    again = run_cache_latents(config_of(tmp_path, cache_dir=cache), emit=ignore)
    assert (again.encoded, again.reused) == (0, 9)


def test_workers_read_pictures_of_tar_shards(prepare, tmp_path):
    toy = prepare("color_aug = true")
    how = {"max_train_steps": 2, "max_data_loader_n_workers": 1}
    plain = toy("plain", **how)
    pack(tmp_path)
    packed = toy("packed", **how)
    assert plain.error is packed.error is None
    assert len(packed.losses) == 2
    assert packed.losses == plain.losses
