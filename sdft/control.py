"""Commands from outside to a run that is at work, as files in its `control/` folder.

    <id>.command.json    what is asked, written whole by the asker, removed when it is answered
    <id>.answer.json     what the run said to it

An id is the time in nanoseconds and a random part, so ids sort by time. Files, not a socket: they
work over a network drive, from another user session, and leave nothing open when a process dies.
The folder may be written by anybody who may write the run, so nothing in it is trusted.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sdft.errors import EnvironmentFault, UserError, nearest
from sdft.files import remove, write_json
from sdft.rundir import RunDir, holder_is_alive, read_lock

COMMANDS: Mapping[str, str] = {
    "pause": "wait after the step in progress; --release gives the GPU's memory back meanwhile",
    "resume": "go on after a pause",
    "save": "write a checkpoint and a state now",
    "sample": "draw the sample prompts now",
    "stop": "save the state and end",
    "set": "change learning_rate for the steps to come",
}
"""Every command, with what it does."""

POLL_EVERY_S = 0.2
"""How often a run looks for commands; a look costs about 20 microseconds on a local disk."""

MAX_COMMAND_BYTES = 65_536
"""A longer file is no command; it is not read."""

KEEP_ANSWERS_S = 3600.0
"""Answers older than this are removed; `events.jsonl` has them for good."""

_ID = re.compile(r"[0-9]{20}-[0-9a-f]{8}")
_COMMAND = ".command.json"
_ANSWER = ".answer.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """One thing that a run is asked to do."""

    id: str
    name: str
    arguments: Mapping[str, Any]
    time_s: float
    sender: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a run said to a command."""

    command_id: str
    ok: bool
    message: str
    time_s: float


def checked_arguments(name: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return a command's arguments in full.

    Raises: UserError for a name or an argument that no command has.
    """
    if name not in COMMANDS:
        fix = nearest(name, list(COMMANDS)) or f"known: {', '.join(COMMANDS)}"
        raise UserError(what=f'no command "{name}"', fix=fix)
    known = {"pause": {"release"}, "set": {"learning_rate"}}.get(name, set())
    for argument in arguments:
        if argument not in known:
            known_words = ", ".join(sorted(known)) or "nothing"
            raise UserError(what=f'{name} knows no "{argument}"', fix=f"it takes {known_words}")
    if name == "pause":
        return {"release": arguments.get("release", False) is True}
    if name == "set":
        return {"learning_rate": _learning_rate(arguments.get("learning_rate"))}
    return {}


def _learning_rate(value: object) -> float:
    try:
        rate = float(value) if isinstance(value, int | float | str) else math.nan
    except (ValueError, OverflowError):
        rate = math.nan
    if not 0 <= rate <= 1:
        raise UserError(
            what=f"learning_rate {value!r} is not a number from 0 to 1", fix="such as 1e-5"
        )
    return rate


def send_command(
    run: RunDir, name: str, arguments: Mapping[str, Any] | None = None, *, sender: str
) -> Command:
    """Ask the process that writes `run` for something; returns at once.

    Raises: UserError for an unknown command, or where no process writes the run;
        EnvironmentFault where the folder cannot be written.
    """
    full = checked_arguments(name, arguments or {})
    if not is_at_work(run):
        raise UserError(
            what="no process is training this run",
            where=str(run.path),
            fix="start it again with its command and --resume auto",
            key="run_not_at_work",
        )
    command = Command(
        id=f"{time.time_ns():020d}-{secrets.token_hex(4)}",
        name=name,
        arguments=full,
        time_s=time.time(),
        sender=sender,
    )
    write_json(run.control / f"{command.id}{_COMMAND}", asdict(command))
    return command


def wait_for_answer(
    run: RunDir, command_id: str, *, timeout_s: float, every_s: float = 0.05
) -> Answer | None:
    """Return the run's answer, or None where none came in time or the process is gone."""
    deadline_s = time.monotonic() + timeout_s
    while True:
        # Looked at before the answer: a process that answers and ends in between is not missed.
        alive = is_at_work(run)
        answer = read_answer(run, command_id)
        if answer is not None or not alive or time.monotonic() >= deadline_s:
            return answer
        time.sleep(every_s)


def is_at_work(run: RunDir) -> bool:
    """Tell whether a process holds the run's lock."""
    holder = read_lock(run.lock_file)
    return holder is not None and holder_is_alive(holder)


def read_answer(run: RunDir, command_id: str) -> Answer | None:
    """Return the answer to a command, or None where there is none yet."""
    record = _read_record(run.control / f"{command_id}{_ANSWER}")
    if record is None:
        return None
    return Answer(
        command_id=command_id,
        ok=record.get("ok") is True,
        message=str(record.get("message", "")),
        time_s=_number(record.get("time_s")),
    )


class ControlInbox:
    """The run's side: commands that have come in since the last look.

    Commands that are there when it is made were meant for an earlier process: a stop that nobody
    heard must not end the run that was resumed after it. They are refused. Nothing here raises:
    a folder that cannot be read or written must not end a training.
    """

    def __init__(
        self,
        run: RunDir,
        *,
        every_s: float = POLL_EVERY_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._folder = run.control
        self._every_s = every_s
        self._clock = clock
        self._next_look_s = -math.inf
        self._answered: set[str] = set()
        for command_id in self._waiting_ids():
            self.answer(command_id, ok=False, message="the run was not at work when this was asked")

    def poll(self) -> tuple[Command, ...]:
        """Return new commands in the order in which they were asked; malformed ones are refused."""
        now_s = self._clock()
        if now_s < self._next_look_s:
            return ()
        self._next_look_s = now_s + self._every_s
        commands = []
        for command_id in self._waiting_ids():
            try:
                commands.append(_read_command(self._folder, command_id))
            except UserError as error:
                self.answer(command_id, ok=False, message=str(error))
        return tuple(commands)

    def answer(self, command_id: str, *, ok: bool, message: str) -> None:
        """Tell the asker, and take the command away."""
        self._answered.add(command_id)
        answer = Answer(command_id=command_id, ok=ok, message=message, time_s=time.time())
        with contextlib.suppress(OSError, EnvironmentFault):
            write_json(self._folder / f"{command_id}{_ANSWER}", asdict(answer))
        with contextlib.suppress(OSError):
            remove(self._folder / f"{command_id}{_COMMAND}")
        self._forget_old_answers()

    def close(self) -> None:
        """Refuse what came too late."""
        for command_id in self._waiting_ids():
            self.answer(command_id, ok=False, message="the run has ended")

    def _waiting_ids(self) -> Sequence[str]:
        return sorted(
            name.removesuffix(_COMMAND)
            for name in self._names()
            # One that could not be removed is not obeyed twice.
            if name.endswith(_COMMAND) and name.removesuffix(_COMMAND) not in self._answered
        )

    def _names(self) -> Sequence[str]:
        try:
            names = os.listdir(self._folder)
        except OSError:
            return []
        return [name for name in names if _ID.fullmatch(name.partition(".")[0])]

    def _forget_old_answers(self) -> None:
        oldest_ns = time.time_ns() - int(KEEP_ANSWERS_S * 1e9)
        for name in self._names():
            if name.endswith(_ANSWER) and int(name.partition("-")[0]) < oldest_ns:
                with contextlib.suppress(OSError):
                    remove(self._folder / name)


def _read_command(folder: Path, command_id: str) -> Command:
    record = _read_record(folder / f"{command_id}{_COMMAND}")
    if record is None or not isinstance(record.get("arguments"), dict):
        raise UserError(what="not a command file")
    name = str(record.get("name"))
    return Command(
        id=command_id,
        name=name,
        arguments=checked_arguments(name, record["arguments"]),
        time_s=_number(record.get("time_s")),
        sender=str(record.get("sender", ""))[:40],
    )


def _read_record(path: Path) -> dict[str, Any] | None:
    try:
        # A pipe or a device under this name would block or never end.
        if not path.is_file() or path.stat().st_size > MAX_COMMAND_BYTES:
            return None
        record = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else 0.0
