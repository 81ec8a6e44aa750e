"""A training without a model: real events, lock, control files; its weights are a hash chain.

    python -m tests.tui.fake_training RUN [STEPS [SECONDS_A_STEP]]

Started again on a run that was stopped it goes on from its state, as a training does.
"""

from __future__ import annotations

import hashlib
import sys
import time
from pathlib import Path

from sdft.control import ControlInbox
from sdft.errors import UserError
from sdft.jobs.controlled import Actions, Controlled
from sdft.rundir import RunLock
from tests.tui.recorder import Recorder


class FakeTraining:
    """Does steps until the last one, or until it is asked to stop."""

    def __init__(self, path: Path, *, steps: int = 60, step_s: float = 0.02) -> None:
        self.recorder = Recorder(path, steps=steps)
        self.step_s = step_s
        self.rate = 5e-6
        self.reason: str | None = None
        self.weights = b"base"
        self._state = path / "state.txt"

    def train(self) -> None:
        recorder = self.recorder
        with RunLock(recorder.run):
            if self._state.exists():
                step, weights = self._state.read_text().split()
                recorder.step, self.weights = int(step), bytes.fromhex(weights)
            controlled = Controlled(
                ControlInbox(recorder.run, every_s=0.02),
                Actions(
                    save=self.save,
                    sample=self.sample,
                    set_learning_rate=self.set_learning_rate,
                    stop=lambda: setattr(self, "reason", "asked"),
                    restart_clock=lambda: None,
                ),
                emit=recorder.emit,
                stop_reason=lambda: self.reason,
                sleep=lambda _duration_s: time.sleep(0.02),
            )
            recorder.begin("fake", first_step=recorder.step + 1)
            while recorder.step < recorder.steps and self.reason is None:
                time.sleep(self.step_s)
                recorder.do_steps(1)
                self.weights = hashlib.sha256(self.weights).digest()
                controlled.after_step(recorder.step)
            self.save()
            if self.reason is None:
                recorder.finish()
            else:
                recorder.stop(self.reason)

    def save(self) -> str:
        self._state.write_text(f"{self.recorder.step} {self.weights.hex()}")
        self.recorder.save()
        return f"saved step {self.recorder.step}"

    def sample(self) -> str:
        self.recorder.sample("a cat", seed=3)
        return "1 picture"

    def set_learning_rate(self, rate: float) -> str:
        if rate > 0.1:
            raise UserError(what="too much for this model")
        self.rate = rate
        return f"learning_rate {rate:g} from the next step on"


def main(words: list[str]) -> None:
    path, steps, step_s = (*words, *("60", "0.05")[len(words) - 1 :])
    training = FakeTraining(Path(path), steps=int(steps), step_s=float(step_s))
    training.train()
    print("done", training.recorder.step, training.weights.hex()[:12], flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
