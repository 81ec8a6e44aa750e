"""Events as plain sentences, for the log, for pipes, and above a progress bar."""

from __future__ import annotations

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


def line_of(event: Event) -> str | None:  # noqa: PLR0912 - one case an event
    """Return one event as a sentence, or None for one that says nothing by itself."""
    match event:
        case Notice():
            prefix = "" if event.severity == "info" else f"{event.severity}: "
            text = prefix + event.message
        case SettingChosen():
            text = f"{event.name} = {event.value}: {event.reason}"
        case StageStarted():
            text = f"{event.stage} ..."
            if event.total:
                text = f"{event.stage}: {event.total} {event.unit} ..."
        case StageFinished():
            text = f"{event.stage}: done, {event.done} in {format_duration(event.duration_s)}"
        case ItemRejected():
            text = f"not used: {event.path}: {event.reason}"
        case RunStarted():
            text = _run_started(event)
        case StepDone():
            text = step_line(event)
        case EpochDone():
            text = f"epoch {event.epoch} done at step {event.step}, mean loss {event.loss:.4f}"
        case CheckpointSaved():
            text = f"saved {event.path} ({format_bytes(event.size_bytes)})"
        case StateSaved():
            text = f"saved the state of step {event.step}: {event.path}"
        case FileRemoved():
            text = f"removed {event.path}"
        case SampleSaved():
            text = f"picture {event.path}"
        case ValidationDone():
            text = f"step {event.step}: held-out loss {event.loss:.4f}"
            text += f", training images {event.train_loss:.4f}"
        case MemoryPlanned():
            text = f"planned for {format_bytes(event.peak_bytes)} of the device's memory"
        case PausedChanged():
            text = f"{'paused' if event.paused else 'goes on'} after step {event.step}"
        case ControlAnswered():
            text = f"{event.command} ({event.sender}): {'' if event.ok else 'refused: '}"
            text += event.message
        case MemoryPlanned():
            text = f"peak memory about {format_bytes(event.peak_bytes)}"
            if event.device_bytes is not None:
                text += f" of {format_bytes(event.device_bytes)}"
        case PausedChanged():
            text = f"{'paused' if event.paused else 'goes on'} at step {event.step}"
        case ControlAnswered():
            done = "" if event.ok else "not done: "
            text = f"{event.sender}: {event.command}: {done}{event.message}"
        case RunFinished():
            text = f"finished {event.steps} steps, {event.epochs} epochs"
            text += f" in {format_duration(event.duration_s)}"
        case RunStopped():
            text = f"stopped at step {event.step}: {event.reason}"
            if event.fix:
                text += f"\n  -> {event.fix}"
        case _:
            return None
    return visible(text)


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
