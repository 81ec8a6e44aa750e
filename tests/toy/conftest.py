"""Runs of the toy model, prepared once and done in this process."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from accelerate.state import AcceleratorState

from sdft.config.load import load_config
from sdft.errors import SdftError
from sdft.events import Event, StepDone, ignore
from sdft.jobs.train import TrainResult, run_train
from sdft.views.fanout import Fanout
from sdft.views.record import RunRecorder
from tests.toy.in_ranks import Ground, Ranks, draw_images
from tests.toy_model import save_toy_model
from tests.toy_project import prepare_toy


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project to train, with random weights; not to be changed."""
    folder = tmp_path_factory.mktemp("prepared") / "demo"
    prepare_toy(folder)
    return folder


@pytest.fixture(scope="session")
def latents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache that all runs share, as runs of one data set do."""
    return tmp_path_factory.mktemp("latents")


@pytest.fixture(scope="session")
def ranks_server() -> Iterator[Ranks]:
    """Start what runs a command line in several processes."""
    server = Ranks()
    yield server
    server.close()


@pytest.fixture(scope="module")
def ground(module_folder: Callable[[str], Path], ranks_server: Ranks) -> Ground:
    """What the runs of a file by several processes share: a model, pictures, a cache to fill."""
    folder = module_folder("ground")
    save_toy_model(folder / "model", seed=0, family="sd1")
    draw_images(folder / "images")
    return Ground(folder, ranks_server)


@dataclass
class ToyRun:
    """What a run did."""

    result: TrainResult | None = None
    error: SdftError | KeyboardInterrupt | None = None
    events: list[Event] = field(default_factory=list)

    @property
    def losses(self) -> dict[int, float]:
        return {one.step: one.loss for one in self.events if isinstance(one, StepDone)}

    def of(self, kind: type[Event]) -> list[Any]:
        return [one for one in self.events if isinstance(one, kind)]


@pytest.fixture
def resolution_px() -> int:
    """The side that the toy's images come near to; a file of tests may have a larger one.

    A step of four images takes a third of the time that it takes at 192 px.
    """
    return 128


def lay_out_dataset(prepared: Path, folder: Path, resolution_px: int) -> None:
    """Copy the dataset file and its images."""
    text = (prepared / "dataset.toml").read_text("utf-8")
    if resolution_px < 192:
        for before, after in (
            ("resolution = 192", f"resolution = {resolution_px}"),
            ("min_bucket_reso = 128", "min_bucket_reso = 64"),
            ("max_bucket_reso = 320", "max_bucket_reso = 256"),
        ):
            assert before in text
            text = text.replace(before, after)
    (folder / "dataset.toml").write_text(text, "utf-8")
    shutil.copytree(prepared / "images", folder / "images")


@pytest.fixture
def toy(prepared: Path, latents: Path, tmp_path: Path, resolution_px: int) -> Callable[..., ToyRun]:
    """Return a function that trains the toy with the given settings."""

    def run(
        name: str = "toy", *, listen: Callable[[Event], None] = ignore, **settings: Any
    ) -> ToyRun:
        flags: dict[str, Any] = {
            "output_dir": str(tmp_path / "out"),
            "output_name": name,
            "cache_dir": str(latents),
            "max_train_epochs": None,
            "max_train_steps": 4,
            "device": "cpu",
        }
        flags |= settings
        # accelerate remembers the precision of the process' first run.
        AcceleratorState._reset_state(reset_partial_state=True)
        toy_run = ToyRun()
        recorder = RunRecorder()

        def keep(time_s: float, event: Event) -> None:
            toy_run.events.append(event)
            listen(event)

        config_file = tmp_path / "config.toml"
        if not config_file.exists():
            text = (prepared / "config.toml").read_text("utf-8")
            kept = [line for line in text.splitlines() if not line.startswith("max_train_epochs")]
            config_file.write_text("\n".join(kept), "utf-8")
            lay_out_dataset(prepared, tmp_path, resolution_px)
            shutil.copy(prepared / "model.safetensors", tmp_path)
        try:
            config = load_config(config_file, flags, tmp_path, for_training=True)
            toy_run.result = run_train(
                config,
                command="sdft train config.toml",
                emit=Fanout([recorder, keep]),
                recorder=recorder,
            )
        except (SdftError, KeyboardInterrupt) as error:
            toy_run.error = error
        finally:
            recorder.close()
        return toy_run

    return run


@pytest.fixture
def read_events(tmp_path: Path) -> Callable[..., list[dict[str, Any]]]:
    """Return a function that reads a run's events.jsonl."""

    def read(name: str = "toy") -> list[dict[str, Any]]:
        file = tmp_path / "out" / f"{name}.run" / "events.jsonl"
        return [json.loads(line) for line in file.read_text("ascii").splitlines()]

    return read


def extend_dataset(folder: Path, *lines: str) -> None:
    """Add lines to the end of the toy's dataset file: keys of its last subset, or new tables."""
    file = folder / "dataset.toml"
    text = file.read_text("utf-8").rstrip()
    file.write_text(text + "".join(f"\n  {line}" for line in lines) + "\n", "utf-8")


@pytest.fixture
def prepare(
    toy: Callable[..., ToyRun], prepared: Path, tmp_path: Path, resolution_px: int
) -> Callable[..., Callable[..., ToyRun]]:
    """Return a function that lays out the toy's files, adds lines to its dataset file, and
    returns `toy`."""

    def lay_out(*lines: str) -> Callable[..., ToyRun]:
        text = (prepared / "config.toml").read_text("utf-8")
        kept = [line for line in text.splitlines() if not line.startswith("max_train_epochs")]
        (tmp_path / "config.toml").write_text("\n".join(kept), "utf-8")
        lay_out_dataset(prepared, tmp_path, resolution_px)
        shutil.copy(prepared / "model.safetensors", tmp_path)
        extend_dataset(tmp_path, *lines)
        return toy

    return lay_out
