"""`sdft prove-resume`: whether a resumed run is the run, shown on this machine with these settings.

In: a Config. Out: a verdict. Three trainings as processes of their own: two that nothing disturbs,
to see whether this machine repeats itself, and one that is killed at random instants and resumed.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from sdft.config.folders import cache_folder
from sdft.config.load import Config
from sdft.config.write import resolved_toml
from sdft.errors import EnvironmentFault, UserError
from sdft.events import Emit, Notice, StageFinished, StageProgress, StageStarted
from sdft.files import make_folder, remove, write_text
from sdft.rundir import RunDir
from sdft.urls import UrlPath

NAME = "run"
STATES_A_RUN = 5
"""So many rolling states are written in each training."""
_POLL_S = 0.005
_TAIL_CHARACTERS = 2000
_WITHOUT_PLACE = "progress.json"
"""Holds the length of the events, in which the times have more or fewer digits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """What one training came to."""

    digests: Mapping[str, str]
    """Of each file of its last state: weights, optimizer."""
    figures: tuple[tuple[Any, ...], ...]
    """Step, loss, gradient norm and learning rate of each step."""
    step_s: float
    """Median duration of a step."""
    machine: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProveResult:
    """The verdict."""

    steps: int
    deterministic: bool
    """Whether `deterministic` had to be set, or was."""
    repeats: bool
    """Two undisturbed runs agree to the bit."""
    exact: bool
    """The killed and resumed run agrees with them."""
    kills: tuple[int, ...]
    """After which steps the processes were killed."""
    differences: tuple[str, ...]
    step_s: float
    plain_step_s: float | None
    """Without `deterministic`, where it had to be set."""
    machine: Mapping[str, str]
    folder: Path | None
    """Where everything lies still, if it was kept."""

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {"folder": str(self.folder) if self.folder else None}

    def words(self) -> str:
        """Say it in a few lines."""
        facts = ", ".join(f"{name} {value}" for name, value in self.machine.items())
        lines = [f"{self.steps} steps on {facts}"]
        if self.plain_step_s is not None:
            cost = 100 * (self.step_s / self.plain_step_s - 1)
            lines.append(
                "this machine does not repeat itself without --deterministic, which makes a step"
                f" {cost:+.0f} % longer ({self.plain_step_s:.3f} s, {self.step_s:.3f} s)"
            )
        if not self.repeats:
            lines.append("two undisturbed runs differ, so a resumed one cannot be the same:")
        else:
            lines.append("two undisturbed runs are the same to the bit")
            after = ", ".join(map(str, self.kills))
            lines.append(f"killed {len(self.kills)} times, after steps {after}, and resumed:")
        lines += [f"  {difference}" for difference in self.differences]
        lines.append(
            "EXACT: weights, optimizer and every loss are those of the run that was never stopped"
            if self.exact
            else "NOT EXACT"
        )
        return "\n".join(lines)


def run_prove_resume(
    config: Config,
    *,
    num_steps: int,
    num_kills: int,
    draw_seed: int,
    keep: bool,
    emit: Emit,
) -> ProveResult:
    """Train three times, kill one of them, and compare.

    Raises: UserError where steps or kills make no sense; EnvironmentFault where a training fails
        by itself.
    """
    if num_steps < 2 or num_kills < 1:
        raise UserError(what="at least 2 steps and 1 kill are needed", where="--steps, --kills")
    settings = config.training
    assert settings.output_dir is not None, "the check of the settings asks for it"
    if isinstance(settings.output_dir, UrlPath):
        raise UserError(
            what="resume is proved on this machine's disk, not on an object store",
            where=str(settings.output_dir),
            fix="give --output_dir a folder",
        )
    folder = settings.output_dir / f"{settings.output_name or 'last'}.prove-resume"
    remove(folder)
    make_folder(folder)
    emit(StageStarted(stage="prove-resume", total=3 * num_steps, unit="steps"))
    started_s = time.monotonic()
    proof = _Proof(
        config=config, folder=folder, num_steps=num_steps, draws=random.Random(draw_seed), emit=emit
    )
    deterministic = settings.deterministic
    one, other = proof.whole("one", deterministic), proof.whole("other", deterministic)
    plain_step_s = None
    if differences(one, other) and not deterministic:
        message = "two undisturbed runs differ; trying again with deterministic"
        emit(Notice(severity="warning", topic="exactness", message=message))
        plain_step_s, deterministic = one.step_s, True
        one, other = proof.whole("one again", True), proof.whole("other again", True)
    found = differences(one, other)
    kills: tuple[int, ...] = ()
    if not found:
        killed, kills = proof.killed("killed", deterministic, num_kills)
        found = differences(one, killed)
        exact = not found
    else:
        exact = False
    emit(
        StageFinished(
            stage="prove-resume", done=proof.steps_done, duration_s=time.monotonic() - started_s
        )
    )
    if exact and not keep:
        remove(folder)
    return ProveResult(
        steps=num_steps,
        deterministic=deterministic,
        repeats=bool(kills),
        exact=exact,
        kills=kills,
        differences=tuple(found),
        step_s=one.step_s,
        plain_step_s=plain_step_s,
        machine=one.machine,
        folder=None if exact and not keep else folder,
    )


def differences(one: Trained, other: Trained) -> list[str]:
    """Say in what two trainings differ."""
    found = []
    for mine, its in zip(one.figures, other.figures, strict=False):
        if mine != its:
            found.append(f"step {mine[0]} first: loss {mine[1]!r}, and {its[1]!r}")
            break
    if len(one.figures) != len(other.figures):
        found.append(f"{len(one.figures)} steps, and {len(other.figures)}")
    names = [*one.digests, *(name for name in other.digests if name not in one.digests)]
    broken = [name for name in names if one.digests.get(name) != other.digests.get(name)]
    if broken:
        found.append(f"{len(broken)} of {len(names)} files of the state: {', '.join(broken)}")
    return found


@dataclass(kw_only=True)
class _Proof:
    """Runs the trainings."""

    config: Config
    folder: Path
    num_steps: int
    draws: random.Random
    emit: Emit
    steps_done: int = 0

    def whole(self, name: str, deterministic: bool) -> Trained:
        """Train without disturbance."""
        file, run = self._prepared(name, deterministic)
        self._ended(self._started(file), file)
        self._progress()
        return _read(run)

    def killed(
        self, name: str, deterministic: bool, num_kills: int
    ) -> tuple[Trained, tuple[int, ...]]:
        """Train, kill and resume; return also after which steps the kills fell."""
        file, run = self._prepared(name, deterministic)
        kills: list[int] = []
        targets = sorted(self.draws.sample(range(1, self.num_steps), self._most(num_kills)))
        resume: list[str] = []
        for target in targets:
            process = self._started(file, *resume)
            resume = ["--resume", "auto"]
            pause_s = self.draws.uniform(0, 0.2)
            while process.poll() is None and _last_step(run) < target:
                time.sleep(_POLL_S)
            time.sleep(pause_s)
            process.kill()
            if process.wait() == 0:
                break
            kills.append(_last_step(run))
        self._ended(self._started(file, *resume), file)
        self._progress()
        return _read(run), tuple(kills)

    def _most(self, num_kills: int) -> int:
        return min(num_kills, self.num_steps - 1)

    def _prepared(self, name: str, deterministic: bool) -> tuple[Path, RunDir]:
        """Write the settings of one training; return their file and its run folder."""
        settings = self.config.training
        seed = settings.seed if settings.seed is not None else 1
        config = self.config.with_training(
            output_dir=self.folder / name,
            output_name=NAME,
            max_train_steps=self.num_steps,
            max_train_epochs=None,
            max_train_time=None,
            seed=seed,
            deterministic=deterministic,
            cache_dir=self.config.training.cache_dir or cache_folder(self.config),
            # Rounded weights could hide a difference.
            save_precision="float",
            save_model_as="safetensors",
            save_every_n_steps=None,
            save_every_n_epochs=None,
            save_n_epoch_ratio=None,
            save_state=False,
            save_state_on_train_end=True,
            no_rolling_state=False,
            rolling_state_minutes=0.0,
            rolling_state_steps=max(1, self.num_steps // STATES_A_RUN),
            resume=None,
            overwrite=False,
            log_with=None,
            logging_dir=None,
        )
        file = self.folder / f"{name}.toml"
        write_text(file, resolved_toml(config))
        return file, RunDir.of(self.folder / name, NAME)

    def _started(self, file: Path, *options: str) -> subprocess.Popen[bytes]:
        line = [sys.executable, "-m", "sdft", "train", str(file), "--quiet", *options]
        with file.with_suffix(".log").open("ab") as log:
            return subprocess.Popen(line, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def _ended(self, process: subprocess.Popen[bytes], file: Path) -> None:
        code = process.wait()
        if code != 0:
            log = file.with_suffix(".log").read_text("utf-8", "replace")
            raise EnvironmentFault(
                what=f"a training of the proof ended with {code}:\n{log[-_TAIL_CHARACTERS:]}",
                where=str(file),
            )

    def _progress(self) -> None:
        self.steps_done += self.num_steps
        self.emit(StageProgress(stage="prove-resume", done=self.steps_done))


def _read(run: RunDir) -> Trained:
    (state,) = run.states.glob("step*")
    manifest = json.loads((state / "manifest.json").read_text("utf-8"))
    progress = json.loads((state / _WITHOUT_PLACE).read_text("utf-8"))
    digests = {name: digest for name, (_, digest) in manifest.items() if name != _WITHOUT_PLACE}
    digests["place and losses"] = json.dumps(progress["progress"], sort_keys=True)
    steps = [one for one in _events(run) if one.get("event") == "StepDone"]
    return Trained(
        digests=digests,
        figures=tuple(
            (one["step"], one["loss"], one["grad_norm"], one["lr"], one["epoch"]) for one in steps
        ),
        step_s=median(one["duration_s"] for one in steps),
        machine=progress["machine"],
    )


def _last_step(run: RunDir) -> int:
    return max((one["step"] for one in _events(run) if one.get("event") == "StepDone"), default=0)


def _events(run: RunDir) -> list[dict[str, Any]]:
    try:
        lines = run.events_file.read_bytes().split(b"\n")
    except OSError:
        return []
    # The last part is empty, or a line that is being written.
    return [json.loads(line) for line in lines[:-1]]
