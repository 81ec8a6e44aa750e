"""Events as plain sentences, for the log, for pipes, and above a progress bar."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sdft.events import (
    CheckpointSaved,
    ControlAnswered,
    EpochDone,
    Event,
    FileRemoved,
    ItemRejected,
    MemoryPlanned,
    Notice,
    PausedChanged,
    RunFinished,
    RunStarted,
    RunStopped,
    SampleSaved,
    SettingChosen,
    StageFinished,
    StageStarted,
    StateSaved,
    StepDone,
    ValidationDone,
)
from sdft.units import format_bytes, format_duration
from sdft.views.text import visible


def line_of(event: Event) -> str | None:
    """Return one event as a sentence, or None for one that says nothing by itself."""
    sentence = _SENTENCES.get(type(event))
    return None if sentence is None else visible(sentence(event))


def step_line(event: StepDone) -> str:
    width, height = event.bucket
    norm = "" if event.grad_norm is None else f", gradient norm {event.grad_norm:.3g}"
    return (
        f"step {event.step}, epoch {event.epoch}: loss {event.loss:.4f}, lr {event.lr:.3g}{norm}"
        f", {width}x{height}, {event.items} images in {format_duration(event.duration_s)}"
    )


def _run_started(event: RunStarted) -> str:
    text = (
        f"training {event.name}: {event.steps} steps, {event.epochs} epochs, {event.images} images,"
        f" {event.effective_batch} a step, on {event.device}"
    )
    return text if event.first_step == 1 else f"{text}; goes on at step {event.first_step}"


def _stage_started(event: StageStarted) -> str:
    return f"{event.stage}: {event.total} {event.unit} ..." if event.total else f"{event.stage} ..."


def _stage_finished(event: StageFinished) -> str:
    return f"{event.stage}: done, {event.done} in {format_duration(event.duration_s)}"


def _notice(event: Notice) -> str:
    return event.message if event.severity == "info" else f"{event.severity}: {event.message}"


def _validation(event: ValidationDone) -> str:
    ends = (event.loss_low, event.loss_high)
    band = "" if None in ends else f" ({event.loss_low:.4f} to {event.loss_high:.4f})"
    return (
        f"step {event.step}: loss of held-out images {event.loss:.4f}{band},"
        f" of training images {event.train_loss:.4f}{', the best so far' if event.is_best else ''}"
    )


def _memory_planned(event: MemoryPlanned) -> str:
    of = "" if event.device_bytes is None else f" of {format_bytes(event.device_bytes)}"
    return f"peak memory about {format_bytes(event.peak_bytes)}{of}"


def _run_finished(event: RunFinished) -> str:
    duration = format_duration(event.duration_s)
    return f"finished {event.steps} steps, {event.epochs} epochs in {duration}"


def _run_stopped(event: RunStopped) -> str:
    fix = f"\n  -> {event.fix}" if event.fix else ""
    return f"stopped at step {event.step}: {event.reason}{fix}"


def _control(event: ControlAnswered) -> str:
    return f"{event.sender}: {event.command}: {'' if event.ok else 'not done: '}{event.message}"


_SENTENCES: dict[type[Event], Callable[[Any], str]] = {
    Notice: _notice,
    SettingChosen: lambda event: f"{event.name} = {event.value}: {event.reason}",
    StageStarted: _stage_started,
    StageFinished: _stage_finished,
    ItemRejected: lambda event: f"not used: {event.path}: {event.reason}",
    RunStarted: _run_started,
    StepDone: step_line,
    EpochDone: lambda event: (
        f"epoch {event.epoch} done at step {event.step}, mean loss {event.loss:.4f}"
    ),
    CheckpointSaved: lambda event: f"saved {event.path} ({format_bytes(event.size_bytes)})",
    StateSaved: lambda event: f"saved the state of step {event.step}: {event.path}",
    FileRemoved: lambda event: f"removed {event.path}",
    SampleSaved: lambda event: f"picture {event.path}",
    ValidationDone: _validation,
    MemoryPlanned: _memory_planned,
    PausedChanged: lambda event: f"{'paused' if event.paused else 'goes on'} at step {event.step}",
    ControlAnswered: _control,
    RunFinished: _run_finished,
    RunStopped: _run_stopped,
}
