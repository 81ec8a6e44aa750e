"""TensorBoard and wandb hold the figures that the run's own record holds."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from sdft.config.load import load_config
from sdft.events import Notice, StepDone, ValidationDone
from sdft.views.trackers import figures_of

FIGURES = ("loss", "lr/unet", "grad_norm", "images_per_s", "loss/validation")


@pytest.fixture
def tracked(toy, tmp_path, prepared, monkeypatch):
    """Return a function that trains a toy with trackers, and what was said."""
    from sdft.cli.trackers import trackers_of

    def run(**settings):
        events = []
        flags = {"output_dir": str(tmp_path / "out"), "output_name": "toy", **settings}
        config = load_config(tmp_path / "config.toml", flags, tmp_path, for_training=True)
        view = trackers_of(config)
        view.report_to(events.append)
        clock = iter(range(10**6))
        try:
            done = toy("toy", listen=lambda event: view(float(next(clock)), event), **settings)
        finally:
            view.close()
        assert done.error is None, done.error
        return done, events

    # The first run lays out the folder that load_config reads.
    assert toy("first", max_train_steps=1).error is None
    return run


def expected_of(run):
    """Return the figures of the record by name and step."""
    found = {}
    for event in run.of(StepDone) + run.of(ValidationDone):
        step, figures = figures_of(event)
        for name, value in figures.items():
            found[name, step] = value
    return found


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_tensorboard_holds_the_same_figures(tracked, tmp_path):
    event_accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator"
    )
    logs = tmp_path / "logs"
    run, said = tracked(
        max_train_steps=3,
        logging_dir=str(logs),
        log_prefix="mine-",
        log_config=True,
        validation_split=0.3,
    )
    assert said == []
    (folder,) = [path for path in logs.iterdir() if path.name.startswith("mine-")]
    reader = event_accumulator.EventAccumulator(str(folder / "finetuning"))
    reader.Reload()
    found = {
        (name, point.step): point.value
        for name in reader.Tags()["scalars"]
        for point in reader.Scalars(name)
    }
    expected = expected_of(run)
    assert {name for name, _ in expected} >= set(FIGURES)
    for place, value in expected.items():
        # TensorBoard keeps 32 bits.
        assert found[place] == pytest.approx(value, rel=1e-6), place
    everything = "".join(path.read_text() for path in folder.rglob("hparams.yml"))
    assert "learning_rate" in everything
    assert str(tmp_path) not in everything


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_wandb_offline_holds_the_same_figures(tracked, tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("WANDB_DISABLE_GIT", "true")
    for name in ("CONFIG", "CACHE", "DATA"):
        monkeypatch.setenv(f"WANDB_{name}_DIR", str(tmp_path / "wandb-own"))
    run, said = tracked(
        max_train_steps=3,
        log_with="wandb",
        logging_dir=str(tmp_path / "logs"),
        wandb_run_name="third",
        log_tracker_name="cats",
        validation_split=0.3,
    )
    assert [event for event in said if isinstance(event, Notice)] == []
    (file,) = (tmp_path / "logs").rglob("*.wandb")
    found = {}
    for row in wandb_rows(file):
        for name, value in row.items():
            if not name.startswith("_"):
                found[name, row["_step"]] = value
    for place, value in expected_of(run).items():
        assert found[place] == pytest.approx(value, rel=1e-12), place


def wandb_rows(file: Path):
    """Give the history rows of an offline run's file."""
    from wandb.proto import wandb_internal_pb2
    from wandb.sdk.internal.datastore import DataStore

    store = DataStore()
    store.open_for_scan(str(file))
    while (data := store.scan_data()) is not None:
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        if record.WhichOneof("record_type") == "history":
            yield {
                (item.key or "/".join(item.nested_key)): json.loads(item.value_json)
                for item in record.history.item
            }


def test_a_run_goes_on_without_a_tracker_that_is_not_there(tracked, tmp_path, monkeypatch):
    monkeypatch.setenv("NOTHING", os.devnull)
    try:
        import aim  # noqa: F401
    except ImportError:
        _, said = tracked(max_train_steps=1, log_with="aim", logging_dir=str(tmp_path / "logs"))
        (notice,) = said
        assert "python -m pip install aim" in notice.message
    else:
        pytest.skip("aim is installed")
