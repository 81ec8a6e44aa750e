"""Trackers get the figures of events, and a run outlives a tracker that fails."""

from __future__ import annotations

import math
import sys
from types import SimpleNamespace
from typing import ClassVar

import pytest

from sdft.config.settings import settings_of
from sdft.config.training import TrainingSettings
from sdft.events import (
    EpochDone,
    Notice,
    RunFinished,
    RunStarted,
    SampleSaved,
    StepDone,
    ValidationDone,
)
from sdft.registry import Registry
from sdft.views import trackers
from sdft.views.fanout import Fanout
from sdft.views.trackers import Trackers, TrackerWishes, chosen_names, figures_of, flat_settings

STARTED = RunStarted(
    name="cats",
    steps=2,
    epochs=1,
    first_step=1,
    images=2,
    effective_batch=1,
    device="cpu",
    model="toy",
    command="sdft train",
    version="0",
)
FINISHED = RunFinished(steps=2, epochs=1, loss=0.1, checkpoint="c", duration_s=1.0)


def step(number, loss=0.5, **changes):
    values = {
        "step": number,
        "epoch": 1,
        "loss": loss,
        "lr": 1e-5,
        "bucket": (512, 512),
        "grad_norm": 1.5,
        "items": 4,
        "duration_s": 2.0,
    }
    return StepDone(**(values | changes))


class Kept:
    """A tracker that keeps what it is given."""

    made: ClassVar[list[Kept]] = []

    def __init__(self, project, **arguments):
        self.project, self.arguments = project, arguments
        self.rows, self.pictures, self.config, self.ended = [], [], None, 0
        Kept.made.append(self)

    def start(self):
        self.started = True

    def store_init_configuration(self, values):
        self.config = values

    def log(self, values, step):
        self.rows.append((step, values))

    def log_images(self, values, step, **more):
        self.pictures.append((step, {name: pixels.shape for name, pixels in values.items()}))

    def finish(self):
        self.ended += 1


class Failing(Kept):
    def log(self, values, step):
        if step == 2:
            raise RuntimeError("the\nserver is gone")
        super().log(values, step)


class Unwilling(Kept):
    def start(self):
        raise OSError("no room")


@pytest.fixture
def table(monkeypatch):
    module = SimpleNamespace(Kept=Kept, Failing=Failing, Unwilling=Unwilling)
    monkeypatch.setitem(sys.modules, "kept_trackers", module)
    rows = {"wandb": "Kept", "mlflow": "Failing", "aim": "Unwilling"}
    table = Registry("tracker", {name: f"kept_trackers:{kind}" for name, kind in rows.items()})
    table._rows["trackio"] = "no_such_package_at_all:Tracker"
    table._by_lower["trackio"] = "trackio"
    monkeypatch.setattr(trackers, "TRACKERS", table)
    Kept.made.clear()


def run_with(tmp_path, names, events, **wishes):
    said = []
    view = Trackers(TrackerWishes(names=names, folder=tmp_path / "logs", **wishes))
    emit = Fanout([lambda time_s, event: said.append(event), view], clock=lambda: 0.0)
    view.report_to(emit)
    for event in events:
        emit(event)
    return [event for event in said if isinstance(event, Notice)]


def test_a_tracker_gets_every_figure_under_its_step(table, tmp_path):
    measured = ValidationDone(
        step=2, epoch=1, loss=0.3, train_loss=0.2, loss_low=0.25, loss_high=0.35
    )
    done = EpochDone(epoch=1, step=2, loss=0.4)
    events = [STARTED, step(1), step(2, 0.25, grad_norm=None), done, measured, FINISHED]
    assert run_with(tmp_path, ("wandb",), events) == []
    (tracker,) = Kept.made
    assert tracker.project == "finetuning"
    assert tracker.rows == [
        (1, {"loss": 0.5, "lr/unet": 1e-5, "epoch": 1, "grad_norm": 1.5, "images_per_s": 2.0}),
        (2, {"loss": 0.25, "lr/unet": 1e-5, "epoch": 1, "images_per_s": 2.0}),
        (2, {"loss/epoch": 0.4}),
        (
            2,
            {
                "loss/validation": 0.3,
                "loss/validation_train": 0.2,
                "loss/validation_low": 0.25,
                "loss/validation_high": 0.35,
            },
        ),
    ]
    assert tracker.ended == 1


def test_a_failing_tracker_is_said_once_and_dropped_while_others_go_on(table, tmp_path):
    events = [STARTED, step(1), step(2), step(3), FINISHED]
    (notice,) = run_with(tmp_path, ("mlflow", "wandb"), events)
    assert notice.severity == "warning"
    assert "mlflow is given up, the run goes on: RuntimeError: the server is gone" in notice.message
    failing, kept = Kept.made
    assert [row[0] for row in failing.rows] == [1]
    assert [row[0] for row in kept.rows] == [1, 2, 3]


def test_a_tracker_that_cannot_start_is_said_and_dropped(table, tmp_path):
    (notice,) = run_with(tmp_path, ("aim",), [STARTED, step(1), FINISHED])
    assert "aim is given up, the run goes on: OSError: no room" in notice.message


def test_a_missing_package_is_named_with_the_way_to_get_it(table, tmp_path):
    (notice,) = run_with(tmp_path, ("trackio",), [STARTED, step(1)])
    assert "python -m pip install trackio" in notice.message


def test_a_figure_that_is_no_number_is_left_out():
    assert figures_of(step(3, math.nan))[1] == {
        "lr/unet": 1e-5,
        "epoch": 1,
        "grad_norm": 1.5,
        "images_per_s": 2.0,
    }
    assert figures_of(STARTED) is None


def test_pictures_of_one_prompt_stand_under_one_name(table, tmp_path):
    from PIL import Image

    path = tmp_path / "a.png"
    Image.new("RGB", (8, 16)).save(path)

    def drawn(number, prompt, file=path):
        return SampleSaved(step=number, path=str(file), prompt=prompt, seed=1)

    gone = drawn(5, "a", tmp_path / "gone.png")
    events = [STARTED, drawn(0, "a"), drawn(0, "b"), drawn(5, "a"), gone, FINISHED]
    assert run_with(tmp_path, ("wandb",), events) == []
    shape = (1, 16, 8, 3)
    assert Kept.made[0].pictures == [
        (0, {"samples/00": shape}),
        (0, {"samples/01": shape}),
        (5, {"samples/00": shape}),
    ]


def test_names_options_and_settings_reach_the_tracker(table, tmp_path):
    wishes = {
        "project": "mine",
        "run_name": "third",
        "options": {"wandb": {"entity": "me"}},
        "settings": {"learning_rate": 1e-5},
    }
    assert run_with(tmp_path, ("wandb",), [STARTED], **wishes) == []
    (tracker,) = Kept.made
    assert tracker.project == "mine"
    expected = {"entity": "me", "name": "third", "dir": str(tmp_path / "logs")}
    assert tracker.arguments == expected
    assert tracker.config == {"learning_rate": 1e-5}


def test_a_folder_alone_means_tensorboard():
    assert chosen_names(None, has_folder=True) == ("tensorboard",)
    assert chosen_names(None, has_folder=False) == ()
    assert chosen_names("all", has_folder=True) == ("tensorboard", "wandb")
    assert chosen_names("mlflow", has_folder=False) == ("mlflow",)


def test_every_name_of_the_setting_is_a_tracker():
    (setting,) = [one for one in settings_of(TrainingSettings) if one.name == "log_with"]
    assert {*setting.choices} == {*trackers.TRACKERS, "all"}


def test_nested_settings_become_plain_names():
    nested = {"a": 1, "b": None, "c": (1, 2), "d": [{"e": "x", "f": {"g": True}}]}
    assert flat_settings(nested) == {"a": 1, "c": "1, 2", "d.0.e": "x", "d.0.f.g": True}
