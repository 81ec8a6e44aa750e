"""Training from pixels, from moments and from kept contexts: the same as from what is cached."""

import shutil

import pytest
from PIL import Image

from sdft.events import ItemRejected, Notice
from sdft.jobs.training.latents import live_subsets
from tests.toy.conftest import extend_dataset


def test_without_a_cache_every_bit_is_that_of_cached_moments(prepare):
    toy = prepare("flip_aug = true")
    cached = toy("cached", cache_moments=True)
    live = toy("live", cache_latents=False, max_data_loader_n_workers=2)
    alone = toy("alone", cache_latents=False, max_data_loader_n_workers=0)
    assert cached.error is live.error is alone.error is None
    assert cached.losses == live.losses == alone.losses
    other = toy("other")
    assert other.losses != cached.losses


def test_the_mean_of_what_the_vae_says_is_the_same_cached_or_not(prepare):
    toy = prepare()
    cached = toy("cached", latent_kind="mean", max_train_steps=2)
    live = toy("live", latent_kind="mean", max_train_steps=2, cache_latents=False)
    moments = toy("moments", latent_kind="mean", max_train_steps=2, cache_moments=True)
    assert cached.losses == live.losses == moments.losses


def test_a_run_on_changing_pictures_resumes_to_the_same_bits(prepare, tmp_path):
    toy = prepare("random_crop = true", "color_aug = true", "flip_aug = true")
    whole = toy("whole", max_train_steps=6, lr_scheduler="constant")
    assert whole.error is None
    halved = toy("halved", max_train_steps=3, lr_scheduler="constant", save_state_on_train_end=True)
    assert {step: whole.losses[step] for step in (1, 2, 3)} == halved.losses
    state = next((tmp_path / "out" / "halved.run" / "states").iterdir())
    rest = toy("rest", max_train_steps=6, lr_scheduler="constant", resume=str(state))
    assert rest.error is None
    assert rest.losses == {step: whole.losses[step] for step in (4, 5, 6)}


def test_an_image_that_vanishes_ends_the_run_resumable_or_counts_nothing(prepare, tmp_path):
    toy = prepare()
    image = sorted((tmp_path / "images").glob("*.png"))[0]

    def vanish(event):
        if type(event).__name__ == "RunStarted":
            image.unlink(missing_ok=True)

    content = image.read_bytes()
    stopped = toy("stopped", cache_latents=False, max_train_steps=8, listen=vanish)
    assert stopped.error is not None
    assert image.name in str(stopped.error)
    assert "unreadable_image" in str(stopped.error)

    image.write_bytes(content)
    skipped = toy(
        "skipped", cache_latents=False, unreadable_image="skip", max_train_steps=8, listen=vanish
    )
    assert skipped.error is None
    assert [one.path for one in skipped.of(ItemRejected)] == [str(image)]


def test_an_image_that_changes_during_the_run_is_said_once(prepare, tmp_path):
    toy = prepare()
    image = sorted((tmp_path / "images").glob("*.png"))[0]

    def change(event):
        if type(event).__name__ == "RunStarted":
            with Image.open(image) as picture:
                turned = picture.transpose(Image.Transpose.ROTATE_180)
            turned.save(image)

    run = toy(cache_latents=False, max_train_steps=8, listen=change)
    assert run.error is None
    told = [one for one in run.of(Notice) if one.topic == "image"]
    assert [one.message.startswith(str(image)) for one in told] == [True]


def test_only_subsets_that_change_are_left_out_of_the_cache(prepare, tmp_path):
    toy = prepare("random_crop = true")
    run = toy("mixed", max_train_steps=1)
    assert run.error is None
    assert any("encoded in each step" in one.message for one in run.of(Notice))
    asked = toy("asked", max_train_steps=1, cache_latents=True)
    assert "random_crop" in str(asked.error)


def test_kept_contexts_are_what_the_text_encoder_gives(prepare):
    toy = prepare()
    kept = toy("kept")
    live = toy("live", text_cache_gb=0)
    assert kept.error is live.error is None
    assert any("are kept" in one.message for one in kept.of(Notice))
    assert kept.losses == pytest.approx(live.losses, rel=1e-4)
    again = toy("again")
    assert again.losses == kept.losses


def test_contexts_are_made_in_each_step_where_words_change_or_do_not_fit(prepare):
    toy = prepare("caption_tag_dropout_rate = 0.5")
    run = toy("chance", max_train_steps=1)
    assert any("in each step; captions change" in one.message for one in run.of(Notice))


@pytest.mark.parametrize("partial", ["carry", "drop"])
def test_partial_batches_can_be_carried_or_dropped(prepare, partial):
    toy = prepare()
    run = toy(partial_batches=partial, max_train_steps=5)
    assert run.error is None
    assert len(run.losses) == 5


def test_is_live_says_which_subsets_are_encoded_in_each_step(prepare, tmp_path):
    from sdft.config.load import load_config

    prepare("color_aug = true")
    config = load_config(tmp_path / "config.toml", {"output_dir": "out"}, tmp_path)
    assert config.training.cache_latents
    assert live_subsets(config) == {(0, 0)}


def test_images_of_regularisation_are_repeated_and_weigh_as_asked(prepare, tmp_path):
    toy = prepare()
    pictures = sorted((tmp_path / "images").glob("*.png"))
    (tmp_path / "class").mkdir()
    for path in pictures[:2]:
        shutil.copy(path, tmp_path / "class")
    extend_dataset(tmp_path, "", "[[datasets.subsets]]", "image_dir = 'class'", "is_reg = true")
    extend_dataset(tmp_path, "class_tokens = 'a shape'")
    runs = {weight: toy(f"w{weight}", prior_loss_weight=weight) for weight in (1.0, 0.5)}
    assert all(run.error is None for run in runs.values())
    told = [one.message for one in runs[1.0].of(Notice)]
    assert any("regularisation images used 18 times" in one for one in told)
    full, half = runs[1.0].losses, runs[0.5].losses
    assert full[1] == half[1]
    assert full[2] != half[2]
