"""Trackers: programs that draw a run's curves elsewhere, such as TensorBoard or wandb.

A listener of events. Each tracker is accelerate's class for it, imported when a run starts. What a
tracker raises is said once, the tracker is dropped, and the run goes on.
"""

from __future__ import annotations

import importlib.util
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sdft.events import (
    EpochDone,
    Event,
    Notice,
    RunFinished,
    RunStarted,
    RunStopped,
    SampleSaved,
    StepDone,
    ValidationDone,
)
from sdft.registry import Registry

TRACKERS = Registry(
    "tracker",
    {
        "tensorboard": "accelerate.tracking:TensorBoardTracker",
        "wandb": "accelerate.tracking:WandBTracker",
        "aim": "accelerate.tracking:AimTracker",
        "clearml": "accelerate.tracking:ClearMLTracker",
        "comet_ml": "accelerate.tracking:CometMLTracker",
        "dvclive": "accelerate.tracking:DVCLiveTracker",
        "mlflow": "accelerate.tracking:MLflowTracker",
        "swanlab": "accelerate.tracking:SwanLabTracker",
        "trackio": "accelerate.tracking:TrackioTracker",
    },
)

ALL = ("tensorboard", "wandb")
"""What `log_with = all` means."""

DEFAULT_PROJECT = "finetuning"
"""Source: sd-scripts."""

_PACKAGES = {"comet_ml": ("comet_ml", "comet-ml")}
"""Module and name in the package index, where they are not the tracker's own name."""

_WITH_FOLDER = ("tensorboard", "aim")
"""Trackers whose class takes the folder as an argument of its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackerWishes:
    """What the settings ask of trackers."""

    names: tuple[str, ...]
    folder: Path
    """Theirs are made within."""
    prefix: str = ""
    project: str = DEFAULT_PROJECT
    run_name: str | None = None
    """In wandb."""
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Arguments of each tracker's start, by its name."""
    settings: Mapping[str, Any] | None = None
    """Of the run, to be shown with it; none sends nothing."""


def figures_of(event: Event) -> tuple[int, dict[str, float]] | None:
    """Return the step and the named figures of an event, or None where it has none.

    `loss`, `lr/unet` and `loss/epoch` are sd-scripts' names. `loss/epoch` stands at the step that
    ended the epoch, so that all curves share one axis.
    """
    match event:
        case StepDone():
            named: dict[str, float | None] = {
                "loss": event.loss,
                "lr/unet": event.lr,
                "epoch": event.epoch,
                "grad_norm": event.grad_norm,
                "images_per_s": event.items / event.duration_s if event.duration_s > 0 else None,
                "memory_bytes": event.memory_bytes,
            }
        case EpochDone():
            named = {"loss/epoch": event.loss}
        case ValidationDone():
            named = {
                "loss/validation": event.loss,
                "loss/validation_train": event.train_loss,
                "loss/validation_low": event.loss_low,
                "loss/validation_high": event.loss_high,
            }
        case _:
            return None
    return event.step, {k: v for k, v in named.items() if v is not None and math.isfinite(v)}


class Trackers:
    """A listener that hands a run's figures and pictures to trackers."""

    def __init__(self, wishes: TrackerWishes) -> None:
        self._wishes = wishes
        self._open: dict[str, Any] = {}
        self._pictures: dict[tuple[str, int], int] = {}
        self._say: Callable[[Event], None] = lambda event: None

    def report_to(self, emit: Callable[[Event], None]) -> None:
        """Name who is told when a tracker fails."""
        self._say = emit

    def __call__(self, time_s: float, event: Event) -> None:
        match event:
            case RunStarted():
                self._start(time_s)
            case SampleSaved():
                self._show(event)
            case RunFinished() | RunStopped():
                self.close()
            case _:
                found = figures_of(event) if self._open else None
                if found is not None:
                    step, figures = found
                    self._each(lambda name, tracker: tracker.log(figures, step=step))

    def close(self) -> None:
        """Let every tracker finish."""
        self._each(lambda name, tracker: tracker.finish())
        self._open.clear()

    def _start(self, time_s: float) -> None:
        folder = self._wishes.folder / (
            self._wishes.prefix + time.strftime("%Y%m%d%H%M%S", time.localtime(time_s))
        )
        for name in self._wishes.names:
            try:
                self._open[name] = _started(name, folder, self._wishes)
            except Exception as error:  # noqa: BLE001 - foreign code; a run does not end by it
                self._drop(name, error)

    def _show(self, event: SampleSaved) -> None:
        if not self._open:
            return
        # Pillow and numpy come at the first picture, not with every start.
        import numpy as np
        from PIL import Image

        try:
            with Image.open(event.path) as picture:
                pixels_1HWC = np.asarray(picture.convert("RGB"))[None]
        except OSError:
            return
        place = (event.prompt, event.seed)
        number = self._pictures.setdefault(place, len(self._pictures))
        named = {f"samples/{number:02d}": pixels_1HWC}

        def show(name: str, tracker: Any) -> None:
            if hasattr(tracker, "log_images"):
                layout = {"dataformats": "NHWC"} if name == "tensorboard" else {}
                tracker.log_images(named, step=event.step, **layout)

        self._each(show)

    def _each(self, act: Callable[[str, Any], None]) -> None:
        for name, tracker in list(self._open.items()):
            try:
                act(name, tracker)
            except Exception as error:  # noqa: BLE001 - as above
                self._drop(name, error)

    def _drop(self, name: str, error: Exception) -> None:
        self._open.pop(name, None)
        self._say(
            Notice(
                severity="warning",
                topic="tracker",
                message=f"{name} is given up, the run goes on: {_reason(name, error)}",
            )
        )


def _started(name: str, folder: Path, wishes: TrackerWishes) -> Any:
    """Return a tracker that is ready to take figures."""
    tracker_class = TRACKERS.get(name)
    arguments = dict(wishes.options.get(name, {}))
    if name in _WITH_FOLDER:
        arguments.setdefault("logging_dir", str(folder))
        folder.mkdir(parents=True, exist_ok=True)
    if name == "wandb":
        arguments.setdefault("dir", str(wishes.folder))
        if wishes.run_name:
            arguments["name"] = wishes.run_name
        wishes.folder.mkdir(parents=True, exist_ok=True)
    tracker = tracker_class(wishes.project, **arguments)
    # Older releases of accelerate start a tracker when it is made.
    if hasattr(tracker, "start"):
        tracker.start()
    if wishes.settings is not None:
        tracker.store_init_configuration(dict(wishes.settings))
    return tracker


def _reason(name: str, error: Exception) -> str:
    module, package = _PACKAGES.get(name, (name, name))
    if isinstance(error, ImportError | NameError) and importlib.util.find_spec(module) is None:
        return f"its package is not installed; python -m pip install {package}"
    words = " ".join(str(error).split())
    return f"{type(error).__name__}: {words}" if words else type(error).__name__


def chosen_names(log_with: str | None, *, has_folder: bool) -> tuple[str, ...]:
    """Return the trackers that the settings mean; a folder alone means TensorBoard."""
    if log_with is None:
        return ("tensorboard",) if has_folder else ()
    return ALL if log_with == "all" else (log_with,)


def flat_settings(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested settings as `datasets.0.batch_size`: plain values that any tracker takes."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            flat |= flat_settings(value, f"{name}.")
        elif isinstance(value, Sequence) and not isinstance(value, str):
            if all(isinstance(part, Mapping) for part in value):
                for number, part in enumerate(value):
                    flat |= flat_settings(part, f"{name}.{number}.")
            else:
                flat[name] = ", ".join(map(str, value))
        elif value is not None:
            flat[name] = value
    return flat
