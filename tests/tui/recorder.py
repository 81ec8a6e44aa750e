"""Makes run folders as a training writes them, without a training."""

from __future__ import annotations

import json
import math
import os
import platform
import random
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from PIL import Image

from sdft.events import (
    CheckpointSaved,
    EpochDone,
    Event,
    EventLine,
    ItemRejected,
    MemoryPlanned,
    Notice,
    RunFinished,
    RunStarted,
    RunStopped,
    SampleSaved,
    StageFinished,
    StageStarted,
    StateSaved,
    StepDone,
    ValidationDone,
)
from sdft.rundir import FINISHED, UNFINISHED, RunDir, RunStatus

STEPS_PER_EPOCH = 50
START_S = 1_790_000_000.0
COMMAND = "sdft train cats.toml --output_name cats"


@dataclass
class Recorder:
    """Writes one run, step by step."""

    path: Path
    steps: int = 400
    step: int = 0
    seed: int = 0
    time_s: float = START_S
    model: str = "sd-v1-5.safetensors"
    draws: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self.run = RunDir(self.path)
        self.draws = random.Random(self.seed)
        self.path.mkdir(parents=True, exist_ok=True)

    def emit(self, event: Event) -> None:
        self.time_s += 0.5
        # Opened and closed for each line, so that a test need not close anything.
        with self.run.events_file.open("ab") as file:
            file.write(EventLine.write(event, self.time_s).encode("ascii") + b"\n")

    def status(self, state: str) -> None:
        self.run.write_status(
            RunStatus(
                state=state,
                config_digest="d",
                steps=self.steps,
                epochs=self.steps // STEPS_PER_EPOCH,
                loss=None,
                checkpoint=None,
            )
        )

    def lock(self, *, alive: bool = True) -> None:
        """Hold the run's lock in the name of this process, or of one that is gone."""
        holder: dict[str, object] = {"pid": os.getpid(), "host": platform.node(), "start": 0.0}
        holder["process_started"] = psutil.Process().create_time() if alive else 1.0
        self.run.lock_file.write_text(json.dumps(holder))

    def unlock(self) -> None:
        self.run.lock_file.unlink(missing_ok=True)

    def begin(self, name: str = "cats", first_step: int = 1) -> None:
        self.status(UNFINISHED)
        self.run.config_file.write_text(
            f'output_name = "{name}"\nlearning_rate = 5e-6\ntrain_batch_size = 4\n'
        )
        self.emit(StageStarted(stage="latents", total=320, unit="images"))
        self.emit(StageFinished(stage="latents", done=320, duration_s=41.0))
        self.emit(ItemRejected(path="cats/broken.png", reason="not a picture"))
        self.emit(MemoryPlanned(peak_bytes=11_200_000_000, device_bytes=12_500_000_000))
        self.emit(
            RunStarted(
                name=name,
                steps=self.steps,
                epochs=self.steps // STEPS_PER_EPOCH,
                first_step=first_step,
                images=320,
                effective_batch=4,
                device="cuda:0",
                model=self.model,
                command=COMMAND,
                version="0.1.0",
            )
        )

    def do_steps(self, number: int) -> None:
        for _ in range(number):
            self.step += 1
            epoch = (self.step - 1) // STEPS_PER_EPOCH + 1
            loss = 0.09 + 0.08 * math.exp(-self.step / 80) + self.draws.uniform(-0.03, 0.03)
            self.emit(
                StepDone(
                    step=self.step,
                    epoch=epoch,
                    loss=loss,
                    lr=5e-6 * min(self.step / 40, 1.0),
                    bucket=self.draws.choice([(512, 512), (448, 576), (576, 448)]),
                    grad_norm=0.4 + self.draws.random() * 0.3,
                    items=4,
                    duration_s=0.75 + self.draws.random() * 0.05,
                    memory_bytes=9_870_000_000,
                )
            )
            if self.step % STEPS_PER_EPOCH == 0:
                self.emit(EpochDone(epoch=epoch, step=self.step, loss=0.1 + 1 / self.step))
                held_out = 0.12 + 0.05 * math.exp(-self.step / 80)
                self.emit(
                    ValidationDone(
                        step=self.step,
                        epoch=epoch,
                        loss=held_out,
                        train_loss=held_out - 0.01,
                        loss_low=held_out - 0.006,
                        loss_high=held_out + 0.006,
                    )
                )

    def sample(self, prompt: str, seed: int = 1, side_px: int = 64) -> Path:
        """Write a picture whose colours tell its step."""
        self.run.samples.mkdir(exist_ok=True)
        path = self.run.samples / f"cats_{self.step:06d}_{seed:02d}.png"
        red, blue = self.step % 256, (seed * 80) % 256
        image = Image.new("RGB", (side_px, side_px), (red, 120, blue))
        image.paste((255, 255, 255), (side_px // 4, side_px // 4, side_px // 2, side_px // 2))
        image.save(path)
        self.emit(SampleSaved(step=self.step, path=str(path), prompt=prompt, seed=seed))
        return path

    def save(self) -> None:
        for kind, name in ((CheckpointSaved, "cats.safetensors"), (StateSaved, "states/s")):
            self.emit(
                kind(step=self.step, epoch=1, path=name, size_bytes=2_100_000_000, duration_s=3.0)
            )

    def fates(self, num_used: int = 318) -> None:
        lines = [
            {
                "path": f"cats/{n}.png",
                "fate": "used",
                "reason": "",
                "bucket": [512, 448 + 64 * (n % 3)],
            }
            for n in range(num_used)
        ]
        lines.append({"path": "cats/broken.png", "fate": "rejected", "reason": "not a picture"})
        lines.append({"path": "cats/tiny.png", "fate": "rejected", "reason": "smaller than 64 px"})
        text = "\n".join(json.dumps(line) for line in lines) + "\n"
        self.run.fates_file.write_text(text)

    def warn(self, message: str, severity: str = "warning") -> None:
        self.emit(Notice(severity=severity, topic="test", message=message))

    def finish(self) -> None:
        self.emit(
            RunFinished(
                steps=self.steps,
                epochs=self.steps // STEPS_PER_EPOCH,
                loss=0.1,
                checkpoint="cats.safetensors",
                duration_s=300.0,
            )
        )
        self.status(FINISHED)
        self.unlock()

    def stop(self, reason: str = "interrupted") -> None:
        self.emit(
            RunStopped(
                step=self.step, reason=reason, resumable=True, fix=f"{COMMAND} --resume auto"
            )
        )
        self.unlock()


PROMPTS = ("a cat in the snow", "a cat on a sofa, evening light")


def example_run(
    path: Path, *, steps_done: int = 230, seed: int = 0, prompts: tuple[str, str] = PROMPTS
) -> Recorder:
    """Return a run in the middle of its work."""
    recorder = Recorder(path, seed=seed)
    recorder.lock()
    recorder.begin(path.stem)
    recorder.fates()
    recorder.do_steps(100)
    for number, prompt in enumerate(prompts, 1):
        recorder.sample(prompt, seed=number)
    recorder.save()
    recorder.warn("12 captions are longer than 75 tokens; their ends are not read")
    recorder.do_steps(steps_done - 100)
    for number, prompt in enumerate(prompts, 1):
        recorder.sample(prompt, seed=number)
    return recorder
