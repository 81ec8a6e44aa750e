"""What the engine says while it works.

The engine and the jobs speak only by `emit(event)`. Each event is one frozen record whose fields
are plain values, so that it can be written as one JSON line and read back by another process.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from math import isfinite
from typing import Any, ClassVar


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Base of all events; the class name is the event's name in `events.jsonl`."""


MAX_NUMBER = 2**63
"""A whole number of this size or more in a file is none that a run wrote."""

Emit = Callable[[Event], None]


def ignore(event: Event) -> None:
    """An `Emit` that nobody listens to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice(Event):
    """Something a person should know. Nothing is repaired or replaced without one."""

    severity: str
    """`info`, `warning` or `error`."""
    topic: str
    """A short stable word for scripts and filters, such as `fallback` or `caption`."""
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingChosen(Event):
    """A setting that the person left open was decided by the program, or an asked one replaced."""

    name: str
    value: Any
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StageStarted(Event):
    """A piece of work with a name begins; `total` is 0 where its length is unknown."""

    stage: str
    total: int
    unit: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StageProgress(Event):
    """`done` of the stage's total are finished. Not kept in `events.jsonl`."""

    stage: str
    done: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StageFinished(Event):
    stage: str
    done: int
    duration_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemRejected(Event):
    """An image is not trained on; also stands in `fates.jsonl`."""

    path: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStarted(Event):
    """The first line of a run, or of its continuation."""

    name: str
    steps: int
    """Optimizer steps of the whole run."""
    epochs: int
    first_step: int
    """The first step that this process will do; 1 in a new run."""
    images: int
    effective_batch: int
    device: str
    model: str
    command: str
    """The command line that started it, for showing; secrets removed."""
    version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StepDone(Event):
    """One optimizer update."""

    step: int
    epoch: int
    loss: float
    """Mean loss of the step's items."""
    lr: float
    bucket: tuple[int, int]
    """Width and height in pixels."""
    grad_norm: float | None
    """Norm of the whole gradient before clipping; none where clipping is off."""
    items: int
    duration_s: float
    memory_bytes: int | None = None
    """Peak allocated on the device since the start; none on a CPU."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochDone(Event):
    epoch: int
    step: int
    loss: float
    """Mean over the epoch's items."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointSaved(Event):
    step: int
    epoch: int
    path: str
    size_bytes: int
    duration_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class StateSaved(Event):
    step: int
    epoch: int
    path: str
    size_bytes: int
    duration_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class FileRemoved(Event):
    """An older checkpoint or state made room for a newer one."""

    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleSaved(Event):
    step: int
    path: str
    prompt: str
    seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidationDone(Event):
    """Images that are not trained on were measured."""

    step: int
    epoch: int
    loss: float
    train_loss: float
    """The same measure on training images."""
    loss_low: float | None = None
    """Lower and upper end of the band that holds the mean with 95 %; none for a single image."""
    loss_high: float | None = None
    images: int = 0
    timesteps: tuple[int, ...] = ()
    losses: tuple[float, ...] = ()
    """The mean loss at each of the timesteps."""
    is_best: bool = False
    """Lower than every measurement before; never the untrained model's."""
    duration_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryPlanned(Event):
    """What the run was expected to need on its device, before its first step."""

    peak_bytes: int
    device_bytes: int | None
    """What the device has; none where that is not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PausedChanged(Event):
    """The run waits, or goes on."""

    paused: bool
    released: bool
    """Whether the device's memory was given back for the time of the pause."""
    step: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlAnswered(Event):
    """A command from outside was obeyed or refused."""

    command_id: str
    command: str
    arguments: Mapping[str, Any]
    sender: str
    """Which program asked, such as `ctl` or `dashboard`."""
    ok: bool
    message: str
    step: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFinished(Event):
    """The last line of a run that did all its steps."""

    steps: int
    epochs: int
    loss: float
    """Mean over the last epoch's items."""
    checkpoint: str
    duration_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStopped(Event):
    """The last line of a run that ended before its last step."""

    step: int
    reason: str
    """`interrupted`, `terminated`, `time limit`, `asked`, or the error's words."""
    resumable: bool
    fix: str
    """The command that goes on from here."""


class EventLine:
    """One event as one JSON line, and back."""

    kinds: ClassVar[Mapping[str, type[Event]]]

    @staticmethod
    def write(event: Event, time_s: float) -> str:
        """Return ASCII JSON without a line end; `time_s` is seconds since 1970, UTC."""
        return json.dumps({"event": type(event).__name__, "time": round(time_s, 3)} | asdict(event))

    @staticmethod
    def read(line: str) -> tuple[float, Event] | None:
        """Return (time, event), or None for a line that this version does not understand.

        A half-written last line, an event of a newer version, or a foreign line gives None; so
        does one whose values are not of the fields' types. A run's folder may come from anywhere.
        """
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            return None
        kind = EventLine.kinds.get(str(record.get("event"))) if isinstance(record, dict) else None
        if kind is None:
            return None
        time_s = record.get("time", 0.0)
        values = {
            field.name: tuple(value) if isinstance(value, list) else value
            for field in fields(kind)
            if (value := record.get(field.name, MISSING)) is not MISSING
        }
        if not _fits("float", time_s) or not all(
            _fits(str(field.type), values[field.name])
            for field in fields(kind)
            if field.name in values
        ):
            return None
        try:
            return (float(time_s), kind(**values)) if isfinite(time_s) else None
        except TypeError:
            return None


_ACCEPTED: Mapping[str, tuple[type, ...]] = {
    "int": (int,),
    "float": (float, int),
    "str": (str,),
    "bool": (bool,),
    "None": (type(None),),
    "Any": (object,),
    "Mapping[str, Any]": (dict,),
}


def _fits(annotation: str, value: object) -> bool:
    """Tell whether a value from a JSON line is one that a field of this type may hold."""
    if annotation == "tuple[int, int]":
        return isinstance(value, tuple) and [type(side) for side in value] == [int, int]
    if isinstance(value, int) and abs(value) >= MAX_NUMBER:
        return False
    return any(
        isinstance(value, accepted)
        for name in annotation.split(" | ")
        for accepted in _ACCEPTED.get(name, (object,))
    )


EventLine.kinds = {kind.__name__: kind for kind in Event.__subclasses__()}
