"""Kills command lines at random instants and runs them again until their work is done."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

import sdft
from sdft.files import PART_MARK

SERVER = Path(__file__).with_name("fork_server.py")
KILLED = -9


class ForkServer:
    """The process that has torch loaded."""

    def __init__(self, prefix: Sequence[str] = ()) -> None:
        """Start it; `prefix` is a command that runs it, such as one that makes a small disk."""
        root = str(Path(sdft.__file__).parent.parent)
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": root}
        self._process = subprocess.Popen(
            [*prefix, sys.executable, str(SERVER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        assert self._answer() == {"ready": True}

    def run(self, argv: Sequence[str], *, folder: Path, log: Path, **how: Any) -> dict[str, Any]:
        """Run one command line; `how` is `kill_at_change` or `kill_after_s`."""
        order = {"argv": list(argv), "folder": str(folder), "log": str(log), **how}
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def shell(self, line: str) -> str:
        """Run a line of the system's shell where the server runs; return what it prints."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"shell": line}) + "\n")
        self._process.stdin.flush()
        answer = self._answer()
        assert answer["code"] == 0, answer
        return str(answer["output"])

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        found: dict[str, Any] = json.loads(self._process.stdout.readline())
        return found


@dataclass(frozen=True)
class Unbroken:
    """What a run that was never killed took and gave."""

    changes: int
    seconds: float


def kill_until_done(
    server: ForkServer,
    first: Sequence[str],
    again: Sequence[str],
    *,
    folder: Path,
    log: Path,
    unbroken: Unbroken,
    draws: random.Random,
    num_kills: int,
) -> list[str]:
    """Run `first`, then `again` until it ends by itself; kill the first `num_kills` processes.

    Returns where each kill fell. A kill that came too late, after the end, is none.
    """
    kills: list[str] = []
    argv = first
    for attempt in range(num_kills + 1):
        how: dict[str, Any] = {}
        if attempt < num_kills:
            if draws.random() < 0.6:
                # Later processes have less to do, so the instant is drawn from less as well.
                share = 1.0 if attempt == 0 else 0.7
                how = {"kill_at_change": draws.randint(1, max(2, int(unbroken.changes * share)))}
            else:
                how = {"kill_after_s": draws.uniform(0.05, unbroken.seconds)}
        done = server.run(argv, folder=folder, log=log, **how)
        if done["code"] == 0:
            return kills
        assert done["code"] == KILLED, f"{argv} ended with {done['code']}: {log.read_text()}"
        kills.append(f"{how}")
        argv = again
    raise AssertionError("the last run was not killed and did not end")


def unfinished(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if PART_MARK in path.name]


def story(events_file: Path) -> list[tuple[Any, ...]]:
    """Return what a run says of its work, without times, sizes and what only one process did."""
    kinds = {
        "StepDone": ("step", "epoch", "loss", "lr", "bucket", "grad_norm", "items"),
        "EpochDone": ("step", "epoch", "loss"),
        "RunFinished": ("steps", "epochs", "loss"),
        "ValidationDone": ("step", "loss", "train_loss"),
    }
    events = [json.loads(line) for line in events_file.read_text("ascii").splitlines()]
    return [
        (one["event"], *(repr(one.get(name)) for name in kinds[one["event"]]))
        for one in events
        if one["event"] in kinds
    ]


def saves(events_file: Path) -> set[tuple[str, int]]:
    """Return the checkpoints that a run says it wrote."""
    events = [json.loads(line) for line in events_file.read_text("ascii").splitlines()]
    saved = [one for one in events if one["event"] == "CheckpointSaved"]
    return {(Path(one["path"]).name, one["step"]) for one in saved}


def assert_same_run(killed: Path, unbroken: Path, name: str) -> None:
    """Check that two output folders hold the same run."""
    assert unfinished(killed) == []
    assert files_of(killed) == files_of(unbroken)
    for path in sorted(unbroken.glob("*.safetensors")):
        one, other = load_file(killed / path.name), load_file(path)
        assert one.keys() == other.keys()
        assert [key for key in one if not torch.equal(one[key], other[key])] == []
    events, expected = (folder / f"{name}.run" / "events.jsonl" for folder in (killed, unbroken))
    assert story(events) == story(expected)
    assert saves(events) == saves(expected)


def files_of(folder: Path) -> set[str]:
    """Return the names of all that a run leaves, but for what depends on time or process."""
    passing = ("log.txt", "control", "lock.json")
    return {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and not any(part in passing for part in path.relative_to(folder).parts)
    }


def fresh(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder
