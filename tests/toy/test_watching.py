"""Sample pictures and validation while a toy trains, and that neither changes the training."""

from __future__ import annotations

import json
import shutil
import signal

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from sdft.errors import ConfigError, Interrupted
from sdft.events import CheckpointSaved, Notice, SampleSaved, StepDone, ValidationDone
from sdft.jobs.sample import run_sample
from sdft.jobs.sample_files import MAX_COLUMNS, Entry, read_index, shown_steps, write_sheet

PROMPTS = "a red circle --w 128 --h 128 --s 2 --d 5\na blue square --w 136 --h 128 --s 2\n"


@pytest.fixture
def prompts(tmp_path):
    file = tmp_path / "prompts.txt"
    file.write_text(PROMPTS, "utf-8")
    return file


@pytest.fixture
def others(tmp_path, prepared):
    """Two pictures that are not among the trained ones."""
    folder = tmp_path / "others"
    folder.mkdir()
    for number, colour in enumerate([(200, 30, 120), (30, 160, 200)]):
        pixels = np.zeros((192, 192, 3), np.uint8) + np.array(colour, np.uint8)
        pixels[40:90, 30 + 50 * number : 150] = 255 - np.array(colour, np.uint8)
        Image.fromarray(pixels).save(folder / f"other{number}.png")
        (folder / f"other{number}.txt").write_text("a rectangle", "utf-8")
    return folder


def weights_of(run):
    assert run.error is None, run.error
    return load_file(run.result.checkpoint)


def same_weights(first, second):
    one, other = weights_of(first), weights_of(second)
    return one.keys() == other.keys() and all(torch.equal(one[n], other[n]) for n in one)


def test_watching_changes_no_bit_of_the_weights(toy, prompts, others):
    plain = toy("plain", max_train_steps=3)
    watched = toy(
        "watched",
        max_train_steps=3,
        sample_prompts=str(prompts),
        sample_every_n_steps=1,
        sample_at_first=True,
        validation_dir=str(others),
        validate_every_n_steps=1,
    )
    assert len(watched.of(ValidationDone)) == 4
    assert len(watched.of(SampleSaved)) == 8
    assert plain.losses == watched.losses
    assert same_weights(plain, watched)


def test_samples_are_drawn_when_asked_with_the_same_seeds_each_time(toy, prompts, tmp_path):
    run = toy(
        max_train_steps=4,
        sample_prompts=str(prompts),
        sample_every_n_steps=2,
        sample_at_first=True,
        learning_rate=1e-3,
    )
    assert run.error is None, run.error
    drawn = run.of(SampleSaved)
    assert [(one.step, one.prompt) for one in drawn] == [
        (step, prompt) for step in (0, 2, 4) for prompt in ("a red circle", "a blue square")
    ]
    assert {one.seed for one in drawn if one.prompt == "a red circle"} == {5}
    assert len({one.seed for one in drawn}) == 2
    folder = run.result.run / "samples"
    names = [f"toy_{step:06d}_00_5.png" for step in (0, 2, 4)]
    assert {*names, "index.json", "sheet.png"} <= {path.name for path in folder.iterdir()}
    pictures = [np.asarray(Image.open(folder / name).convert("RGB")).astype(int) for name in names]
    assert np.abs(pictures[0] - pictures[2]).max() > 0, "training changes what is drawn"
    with Image.open(folder / names[2]) as picture:
        words = picture.text["parameters"]
    assert "a red circle\n" in words
    assert "Seed: 5, Size: 128x128, Training step: 4" in words
    assert str(tmp_path) not in words


def test_a_sample_is_what_the_checkpoint_draws(toy, prompts, tmp_path):
    run = toy(max_train_steps=2, sample_prompts=str(prompts), sample_every_n_epochs=1)
    assert run.error is None, run.error
    in_training = [one for one in run.of(SampleSaved) if one.step == 2]
    assert in_training == []
    again = toy("again", max_train_steps=2, sample_prompts=str(prompts), sample_every_n_steps=2)
    drawn = run_sample(
        again.result.checkpoint,
        prompts_file=prompts,
        output_dir=tmp_path / "drawn",
        seed=1,
        device="cpu",
        emit=lambda event: None,
    )
    first = np.asarray(Image.open(again.of(SampleSaved)[0].path).convert("RGB")).astype(int)
    second = np.asarray(Image.open(drawn.images[0]).convert("RGB")).astype(int)
    assert np.abs(first - second).max() <= 1


def test_epochs_win_over_steps_and_carry_their_number(toy, prompts):
    run = toy(
        max_train_steps=None,
        max_train_epochs=2,
        sample_prompts=str(prompts),
        sample_every_n_epochs=2,
        sample_every_n_steps=1,
    )
    assert run.error is None, run.error
    drawn = run.of(SampleSaved)
    last = max(run.losses)
    assert [one.step for one in drawn] == [last, last]
    assert drawn[0].path.endswith("toy_e000002_00_5.png")


def test_a_file_of_prompts_with_mistakes_is_found_before_anything_is_made(toy, prompts, tmp_path):
    prompts.write_text("fine\na cat --w 500 --ss eular\n", "utf-8")
    run = toy(sample_prompts=str(prompts), sample_every_n_steps=1)
    assert isinstance(run.error, ConfigError)
    assert [problem.where.rpartition("/")[2] for problem in run.error.problems] == [
        "prompts.txt:2"
    ] * 2
    missing = toy(sample_prompts=str(tmp_path / "none.txt"), sample_every_n_steps=1)
    assert "no such file" in str(missing.error)
    assert not (tmp_path / "out").exists()


def test_samples_of_a_moving_average_are_drawn_from_it(toy, prompts):
    settings = {
        "max_train_steps": 4,
        "learning_rate": 5e-3,
        "sample_prompts": str(prompts),
        "sample_every_n_steps": 4,
    }
    plain = toy("plain", **settings)
    averaged = toy("averaged", ema=True, ema_decay=0.999, **settings)
    assert plain.losses == averaged.losses
    pixels = [
        np.asarray(Image.open(run.of(SampleSaved)[0].path)).astype(int) for run in (plain, averaged)
    ]
    assert np.abs(pixels[0] - pixels[1]).max() > 0


def measured(run):
    assert run.error is None, run.error
    return [(one.step, one.loss, one.train_loss, one.losses) for one in run.of(ValidationDone)]


def test_the_same_model_measures_the_same_to_the_last_bit(toy, others):
    settings = {"validation_dir": str(others), "learning_rate": 0.0, "max_train_steps": 2}
    run = toy("still", validate_every_n_steps=1, **settings)
    found = measured(run)
    assert [step for step, *_ in found] == [0, 1, 2]
    assert len({figures for _, *figures in map(tuple, found) for figures in [tuple(figures)]}) == 1
    first = run.of(ValidationDone)[0]
    assert first.images == 2
    assert first.timesteps == (200, 400, 600, 800)
    assert len(first.losses) == 4
    assert first.loss == pytest.approx(sum(first.losses) / 4)
    assert first.loss_low < first.loss < first.loss_high
    again = toy("again", validate_every_n_steps=1, **settings)
    assert measured(again) == found


def test_a_share_is_held_out_by_seed_and_never_trained_on(toy, tmp_path):
    def held(name, **more):
        run = toy(name, max_train_steps=2, validation_split=0.3, seed=3, **more)
        assert run.error is None, run.error
        lines = (run.result.run / "fates.jsonl").read_text("utf-8").splitlines()
        fates = [json.loads(line) for line in lines]
        return run, {fate["path"] for fate in fates if fate["fate"] == "held out"}

    first, paths = held("first")
    assert len(paths) == 3
    assert first.of(ValidationDone)[0].images == 3
    _, other_paths = held("second", validation_seed=8)
    assert other_paths != paths
    _, same = held("third", validation_seed=0)
    assert same == paths


def test_a_resumed_run_goes_on_with_its_measurements(toy, others, tmp_path):
    settings = {
        "validation_dir": str(others),
        "validate_every_n_steps": 1,
        "max_train_steps": 4,
        "save_state": True,
        "save_every_n_steps": 2,
    }
    whole = toy("whole", **settings)

    def stop(event):
        if isinstance(event, StepDone) and event.step == 3:
            signal.raise_signal(signal.SIGINT)

    broken = toy("halved", listen=stop, **settings)
    assert isinstance(broken.error, Interrupted)
    halved = toy("halved", resume="auto", **settings)
    record = json.loads((halved.result.run / "validation.json").read_text())
    assert [one["step"] for one in record["measurements"]] == [0, 1, 2, 3, 4]
    assert [one.step for one in halved.of(ValidationDone)] == [4]
    assert measured(halved) == measured(whole)[4:]


def test_the_best_checkpoint_is_kept_and_a_run_without_gain_ends_as_finished(toy, others):
    run = toy(
        validation_dir=str(others),
        validate_every_n_steps=1,
        save_best_validation=True,
        stop_after_n_validations=3,
        max_train_steps=200,
        learning_rate=0.05,
    )
    assert run.error is None, run.error
    found = run.of(ValidationDone)[1:]
    best = min(found, key=lambda one: one.loss)
    assert run.result.steps == best.step + 3 < 200
    saved = [one for one in run.of(CheckpointSaved) if one.path.endswith("-best.safetensors")]
    assert saved[-1].step == best.step
    assert [one.step for one in found if one.is_best] == [one.step for one in saved]
    assert (run.result.checkpoint.parent / "toy-best.safetensors").exists()
    status = json.loads((run.result.run / "run.json").read_text())
    assert status["state"] == "finished"


def test_pictures_that_are_trained_on_are_named_with_their_pairs(toy, tmp_path, prepared):
    folder = tmp_path / "overlap"
    folder.mkdir()
    images = sorted((prepared / "images").glob("*.png"))
    shutil.copy(images[0], folder / "copy.png")
    with Image.open(images[1]) as picture:
        picture.convert("RGB").resize((200, 140)).save(folder / "again.jpg", quality=80)
    run = toy("first", max_train_steps=1)
    assert run.error is None, run.error
    # The shapes of the demo are their own mirror images.
    lopsided = Image.new("RGB", (192, 192), "white")
    lopsided.paste("navy", (10, 30, 90, 170))
    lopsided.paste("orange", (40, 10, 70, 60))
    lopsided.save(tmp_path / "images" / "lopsided.png")
    (tmp_path / "images" / "lopsided.txt").write_text("words", "utf-8")
    lopsided.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(folder / "mirror.png")
    for path in list(folder.iterdir()):
        path.with_suffix(".txt").write_text("words", "utf-8")
    run = toy(validation_dir=str(folder), max_train_steps=1)
    assert run.error is None, run.error
    (notice,) = [one for one in run.of(Notice) if one.topic == "validation"]
    assert notice.severity == "warning"
    assert images[0].name in notice.message
    lines = (run.result.run / "overlap.jsonl").read_text().splitlines()
    pairs = {json.loads(line)["held_out"].rpartition("/")[2]: json.loads(line) for line in lines}
    assert pairs["copy.png"]["kind"] == "same file"
    assert pairs["again.jpg"]["kind"] == "alike"
    assert pairs["mirror.png"]["kind"] == "mirrored"
    assert pairs["again.jpg"]["train"].endswith(images[1].name)


def test_what_needs_validation_is_refused_without_it(toy):
    run = toy(stop_after_n_validations=3, save_best_validation=True)
    assert isinstance(run.error, ConfigError)
    assert len(run.error.problems) == 2
    assert "validation_split of a dataset, or validation_dir" in str(run.error)


def test_a_sheet_shows_the_first_and_the_last_step(tmp_path):
    assert shown_steps(range(0, 100, 50)) == [0, 50]
    many = shown_steps(range(1000))
    assert (len(many), many[0], many[-1]) == (MAX_COLUMNS, 0, 999)
    entries = []
    for step in (0, 5):
        Image.new("RGB", (64, 128), "green").save(tmp_path / f"{step}.png")
        entry = Entry(step=step, epoch=1, number=0, prompt="x" * 500, seed=1, file=f"{step}.png")
        entries.append(entry)
    gone = Entry(step=5, epoch=1, number=1, prompt="gone", seed=1, file="none.png")
    sheet = write_sheet(tmp_path, [*entries, gone])
    with Image.open(sheet) as picture:
        colours = [colour for _, colour in picture.getcolors(1 << 20)]
        assert (0, 128, 0) in colours
        assert picture.width > 2 * 192
    (tmp_path / "index.json").write_text('[{"step": 1}]')
    assert read_index(tmp_path) == ()
