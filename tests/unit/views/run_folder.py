"""A run folder made by hand, as a finished run of the toy would leave it."""

from __future__ import annotations

import json
import math
from pathlib import Path

from PIL import Image, ImageDraw

from sdft.events import (
    EpochDone,
    Event,
    EventLine,
    Notice,
    RunFinished,
    RunStarted,
    SampleSaved,
    StepDone,
    ValidationDone,
)
from sdft.rundir import RunDir

CONFIG = """
learning_rate = 1e-05
optimizer_type = "AdamW8bit"
seed = 7
output_dir = "/home/anna/results"
max_train_steps = 240

[[datasets]]
resolution = [512, 512]
batch_size = 4
[[datasets.subsets]]
image_dir = "/home/anna/pictures"
"""

PROMPTS = ("a red circle on a white background", 'a <b>blue</b> square & "more"')


def make_run(folder: Path, name: str = "cats", *, num_steps: int = 240, lr: float = 1e-5) -> RunDir:
    """Write a run folder and return it."""
    run = RunDir.of(folder, name)
    run.samples.mkdir(parents=True)
    (run.config_file).write_text(CONFIG.replace("1e-05", repr(lr)), "utf-8")
    environment = {"python": "3.11.7", "memory_bytes": 16 * 10**9, "packages": {"torch": "2.13.0"}}
    run.environment_file.write_text(json.dumps(environment), "utf-8")
    _write_fates(run)
    lines = [
        EventLine.write(event, 1_700_000_000.0 + second)
        for second, event in enumerate(events_of(run, name, num_steps=num_steps, lr=lr))
    ]
    run.events_file.write_text("\n".join(lines) + "\n", "ascii")
    return run


def events_of(run: RunDir, name: str, *, num_steps: int, lr: float) -> list[Event]:
    events: list[Event] = [
        RunStarted(
            name=name,
            steps=num_steps,
            epochs=4,
            first_step=1,
            images=40,
            effective_batch=4,
            device="cuda",
            model="model.safetensors",
            command="sdft train ~/cats.toml",
            version="0.1.0",
        ),
        Notice(severity="warning", topic="caption", message="2 captions are longer than 75 tokens"),
    ]
    for step in range(num_steps + 1):
        if step:
            loss = 0.1 + 0.2 * math.exp(-step / 60) + 0.03 * math.sin(step * 1.7)
            events.append(_step(step, loss, lr))
        if step % 60 == 0:
            events += [_validation(step), *_samples(run, step)]
        if step and step % 60 == 0:
            events.append(EpochDone(epoch=step // 60, step=step, loss=0.1 + 5 / step))
    events.append(
        RunFinished(
            steps=num_steps, epochs=4, loss=0.12, checkpoint=f"{name}.safetensors", duration_s=481.0
        )
    )
    return events


def _step(step: int, loss: float, lr: float) -> StepDone:
    return StepDone(
        step=step,
        epoch=1 + (step - 1) // 60,
        loss=loss,
        lr=lr,
        bucket=(512, 512),
        grad_norm=0.8 + 0.2 * math.cos(step),
        items=4,
        duration_s=2.0,
        memory_bytes=9_000_000_000,
    )


def _validation(step: int) -> ValidationDone:
    loss = 0.3 - step / 2000
    return ValidationDone(
        step=step,
        epoch=1,
        loss=loss,
        train_loss=loss - step / 4000,
        loss_low=loss - 0.02,
        loss_high=loss + 0.02,
    )


def _samples(run: RunDir, step: int) -> list[SampleSaved]:
    found = []
    for number, prompt in enumerate(PROMPTS):
        path = run.samples / f"cats_{step:06d}_{number:02d}_1.png"
        picture = Image.new("RGB", (256, 192), (230, 230, 225))
        size = 20 + step // 4
        box = (128 - size, 96 - size, 128 + size, 96 + size)
        draw = ImageDraw.Draw(picture)
        draw.ellipse(box, "red") if number == 0 else draw.rectangle(box, "blue")
        picture.save(path)
        # As another machine wrote it: only the name counts.
        elsewhere = f"/home/anna/results/cats.run/samples/{path.name}"
        found.append(SampleSaved(step=step, path=elsewhere, prompt=prompt, seed=1))
    return found


def _write_fates(run: RunDir) -> None:
    rows = [
        {
            "path": f"/home/anna/pictures/{number:03d}.png",
            "fate": "used" if number < 38 else "held out",
            "reason": "",
            "bucket": [512, 512] if number % 2 else [448, 576],
            "repeats": 1,
        }
        for number in range(40)
    ]
    broken = {"path": "/home/anna/pictures/<i>.png", "fate": "rejected", "reason": "cut off"}
    lines = [json.dumps(row) for row in [*rows, broken]]
    run.fates_file.write_text("\n".join(lines) + "\n", "ascii")
