"""The folder that a run writes and every viewer reads.

<output_dir>/<output_name>.run/
    run.json          what the run is and how far it came (RunStatus)
    lock.json         there while a process writes the run: pid, host, start
    config.toml       the resolved settings
    events.jsonl      one event a line
    fates.jsonl       what became of every image
    log.txt, environment.json, samples/, states/
    items/            what the images and words of the run were
    control/          commands of `sdft ctl` and their answers
"""

from __future__ import annotations

import json
import math
import os
import platform
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from sdft.errors import DataError, UserError
from sdft.files import make_folder, remove, replace, while_held, write_json

FINISHED = "finished"
UNFINISHED = "unfinished"

MANIFEST = "manifest.json"
"""Of a state; what has none is no state."""
KEPT = "kept"
"""Is in a state that was asked for, so that no rolling one takes its place."""


def state_name(step: int) -> str:
    return f"step{step:08d}"


def is_state_name(name: str) -> bool:
    return name.startswith("step") and name[4:].isdigit()


def state_step(name: str) -> int:
    """Return the number of updates done, from a state's name."""
    return int(name[4:])


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStatus:
    """What `run.json` says."""

    state: str
    """`unfinished` from the first moment on, `finished` after the last step and checkpoint."""
    config_digest: str
    """Of the settings that decide the result; the same command again has the same digest."""
    steps: int
    epochs: int
    loss: float | None
    checkpoint: str | None


@dataclass(frozen=True, slots=True)
class RunDir:
    """Names of the things inside one run folder."""

    path: Path

    @classmethod
    def of(cls, output_dir: Path, output_name: str) -> RunDir:
        return cls(output_dir / f"{output_name}.run")

    @property
    def status_file(self) -> Path:
        return self.path / "run.json"

    @property
    def lock_file(self) -> Path:
        return self.path / "lock.json"

    @property
    def config_file(self) -> Path:
        return self.path / "config.toml"

    @property
    def events_file(self) -> Path:
        return self.path / "events.jsonl"

    @property
    def fates_file(self) -> Path:
        return self.path / "fates.jsonl"

    @property
    def log_file(self) -> Path:
        return self.path / "log.txt"

    @property
    def environment_file(self) -> Path:
        return self.path / "environment.json"

    @property
    def samples(self) -> Path:
        return self.path / "samples"

    @property
    def states(self) -> Path:
        return self.path / "states"

    @property
    def items(self) -> Path:
        return self.path / "items"

    @property
    def control(self) -> Path:
        return self.path / "control"

    def read_status(self) -> RunStatus | None:
        """Return what the folder says of its run, or None where there is no run.

        Raises: DataError where `run.json` is not one that `sdft` wrote.
        """
        try:
            return RunStatus(**json.loads(self.status_file.read_text(encoding="utf-8")))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (TypeError, ValueError) as error:
            raise DataError(
                what=f"not a run's status file ({error})",
                where=str(self.status_file),
                fix="choose another output_name, or remove the folder",
            ) from error

    def write_status(self, status: RunStatus) -> None:
        write_json(self.status_file, asdict(status))

    def move_aside(self, *companions: Path) -> list[tuple[Path, Path]]:
        """Rename the folder and the files that belong to it, so that nothing is written over.

        The folder `x.run` becomes `x.run-1` (or the next free number), the file `x.safetensors`
        becomes `x-1.safetensors`. Returns (old, new) for each that was there.
        """
        present = [path for path in (self.path, *companions) if path.exists()]
        number = 1
        while any(numbered(path, number).exists() for path in present):
            number += 1
        moved = [(path, numbered(path, number)) for path in present]
        for old, new in moved:
            replace(old, new)
        return moved


def numbered(path: Path, number: int) -> Path:
    """Return the name that `path` gets when it is moved aside."""
    if path.suffix == ".run" or path.is_dir():
        return path.with_name(f"{path.name}-{number}")
    return path.with_name(f"{path.stem}-{number}{path.suffix}")


WRITTEN_WITHIN_S = 2.0
"""An empty lock older than this was left by a crash; FAT counts time in steps of 2 s."""


class RunLock:
    """Keeps two processes from writing one run folder.

    Raises on entry: UserError that names the process which holds the lock; EnvironmentFault where
    the folder cannot be made. A lock whose process is gone (same host) is taken over.
    """

    def __init__(self, run: RunDir) -> None:
        self._file = run.lock_file

    def __enter__(self) -> RunLock:
        make_folder(self._file.parent)
        mine = {
            "pid": os.getpid(),
            "host": platform.node(),
            "process_started": psutil.Process().create_time(),
            "start": time.time(),
        }
        while True:
            try:
                # A file that is being removed is held for a moment, too.
                with while_held(lambda: self._file.open("x", encoding="utf-8")) as file:
                    json.dump(mine, file)
                return self
            except FileExistsError:
                self._drop_if_stale()

    def __exit__(self, *exception: object) -> None:
        remove(self._file)

    def _drop_if_stale(self) -> None:
        holder = read_lock(self._file)
        if holder is None and _age_s(self._file) < WRITTEN_WITHIN_S:
            # Another process has made the file and is about to write who it is.
            time.sleep(0.05)
            return
        if holder is not None and holder_is_alive(holder):
            raise UserError(
                what=f"process {holder['pid']} on {holder['host']} is writing this run",
                where=str(self._file.parent),
                fix="wait for it, stop it, or choose another output_name",
                key="run_in_use",
                values={"pid": holder["pid"], "host": holder["host"]},
            )
        remove(self._file)


def _age_s(file: Path) -> float:
    try:
        return time.time() - file.stat().st_mtime
    except FileNotFoundError:
        return math.inf


def read_lock(lock_file: Path) -> dict[str, object] | None:
    """Return what a lock file says, or None where it is absent or cut off."""
    try:
        holder = json.loads(lock_file.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    return holder if isinstance(holder, dict) and {"pid", "host"} <= holder.keys() else None


def holder_is_alive(holder: dict[str, object]) -> bool:
    """Tell whether the process that wrote a lock still runs; one on another host counts as alive.

    A process number is used again after a while, so the process' start has to fit as well.
    """
    if holder["host"] != platform.node():
        return True
    try:
        started = psutil.Process(int(str(holder["pid"]))).create_time()
    except (psutil.NoSuchProcess, ValueError):
        return False
    known = holder.get("process_started")
    return not isinstance(known, float) or abs(started - known) < 1.0
