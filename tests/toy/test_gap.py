"""A toy that learns its images by heart is told so; one that does not is left alone."""

from __future__ import annotations

import pytest

from sdft.config.load import load_config
from sdft.events import Notice, ValidationDone
from sdft.jobs.train import run_train
from sdft.views.fanout import Fanout
from sdft.views.record import RunRecorder
from tests.toy_model import save_toy_model
from tests.toy_pictures import write_pictures

DATASET = """
[[datasets]]
resolution = 128
batch_size = 2
[[datasets.subsets]]
image_dir = "train"
caption_extension = ".txt"
"""


def train(folder, *, num_images, num_steps, every):
    """Train the toy and return its measurements and the notices of a gap."""
    # Other seeds, so that no picture is in both.
    write_pictures(folder / "train", num_images, side_px=128, seed=5)
    write_pictures(folder / "others", 6, side_px=128, seed=99)
    save_toy_model(folder / "model", seed=1)
    (folder / "dataset.toml").write_text(DATASET, "utf-8")
    flags = {
        "pretrained_model_name_or_path": "model",
        "output_dir": "out",
        "max_train_steps": num_steps,
        "learning_rate": 1.5e-3,
        "seed": 1,
        "device": "cpu",
        "validation_dir": "others",
        "validate_every_n_steps": every,
        "validation_timesteps": 3,
    }
    config = load_config(folder / "dataset.toml", flags, folder, for_training=True)
    events = []
    recorder = RunRecorder()
    try:
        run_train(
            config,
            command="sdft train",
            emit=Fanout([recorder, lambda time_s, event: events.append(event)]),
            recorder=recorder,
        )
    finally:
        recorder.close()
    measured = [event for event in events if isinstance(event, ValidationDone)]
    return measured, [e for e in events if isinstance(e, Notice) and e.topic == "gap"]


# Some 100 s on a quiet machine.
@pytest.mark.timeout(1800)
def test_four_images_for_four_hundred_steps_are_learnt_by_heart_and_it_is_said(tmp_path):
    measured, notices = train(tmp_path, num_images=4, num_steps=400, every=50)
    assert measured[-1].train_loss < 0.8 * measured[-1].loss
    assert not all(one.is_best for one in measured[1:])
    *hints, warning = notices
    assert warning.severity == "warning"
    assert "learns its images by heart" in warning.message
    # The toy is new, so held-out images gain for a while although the gap is there.
    assert [hint.severity for hint in hints] in ([], ["info"])
    assert all("still gain" in hint.message for hint in hints)


def test_a_run_that_sees_each_image_once_is_not_accused(tmp_path):
    measured, notices = train(tmp_path, num_images=48, num_steps=24, every=4)
    assert len(measured) == 7
    assert measured[-1].loss < 0.5 * measured[0].loss
    assert notices == []
