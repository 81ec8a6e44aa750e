"""Obeys commands from outside between two steps.

In: the run's inbox and what the training can do, as callables. Out: answers and events. Knows
neither models nor devices; the job hands in what saves, draws and changes.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from sdft.control import Command
from sdft.errors import SdftError, UserError
from sdft.events import ControlAnswered, Emit, PausedChanged

PAUSE_POLL_S = 0.1
"""How long a paused run sleeps between two looks at its commands."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Actions:
    """What a training can do when it is asked; each is called between two steps.

    One that cannot be done raises SdftError: the command is refused and the run goes on.
    """

    save: Callable[[], str]
    """Writes a checkpoint and a state; returns what was written, in words."""
    sample: Callable[[], str]
    """Draws the sample prompts; returns what was drawn, in words."""
    set_learning_rate: Callable[[float], str]
    stop: Callable[[], None]
    """Makes the loop end after this step, with a state."""
    restart_clock: Callable[[], None]
    """Keeps a pause out of the next step's duration."""
    release: Callable[[], None] | None = None
    """Moves everything off the device; none where the training cannot."""
    take_back: Callable[[], None] | None = None
    """Undoes `release`."""


class Inbox(Protocol):
    """Where commands come in, and answers go out."""

    def poll(self) -> tuple[Command, ...]: ...
    def answer(self, command_id: str, *, ok: bool, message: str) -> None: ...


class Controlled:
    """Call `after_step` after every step; it returns at once, or after a pause."""

    def __init__(
        self,
        inbox: Inbox,
        actions: Actions,
        *,
        emit: Emit,
        stop_reason: Callable[[], str | None],
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._inbox = inbox
        self._actions = actions
        self._emit = emit
        self._stop_reason = stop_reason
        self._sleep = sleep
        self._paused = False
        self._released = False

    def after_step(self, step: int) -> None:
        """Obey what was asked since the last step.

        `step` is the number of the step just done. A pause ends by `resume`, by `stop`, or when
        `stop_reason` gives one, such as Ctrl-C.
        """
        self._obey_all(step)
        while self._paused and self._stop_reason() is None:
            self._sleep(PAUSE_POLL_S)
            self._obey_all(step)
        if self._paused:
            self._go_on(step)

    def _obey_all(self, step: int) -> None:
        for command in self._inbox.poll():
            try:
                ok, message = True, self._obey(command, step)
            except SdftError as error:
                ok, message = False, str(error)
            self._inbox.answer(command.id, ok=ok, message=message)
            self._emit(
                ControlAnswered(
                    command_id=command.id,
                    command=command.name,
                    arguments=command.arguments,
                    sender=command.sender,
                    ok=ok,
                    message=message,
                    step=step,
                )
            )

    def _obey(self, command: Command, step: int) -> str:
        match command.name:
            case "pause":
                return self._pause(step, release=command.arguments["release"])
            case "resume":
                if not self._paused:
                    return "the run is not paused"
                self._go_on(step)
                return f"goes on after step {step}"
            case "save" | "sample" if self._released:
                raise UserError(what="the GPU's memory is given back", fix="resume first")
            case "save":
                message = self._actions.save()
            case "sample":
                message = self._actions.sample()
            case "set":
                return self._actions.set_learning_rate(command.arguments["learning_rate"])
            case "stop":
                self._actions.stop()
                return f"stops after step {step} and saves its state"
            case _:
                raise AssertionError(f"the inbox let {command.name} through")
        self._actions.restart_clock()
        return message

    def _pause(self, step: int, *, release: bool) -> str:
        if self._paused and (self._released or not release):
            return f"paused already, after step {step}"
        message = f"paused after step {step}"
        if release and self._actions.release is not None:
            self._actions.release()
            self._released = True
            message += "; the GPU's memory is free"
        elif release:
            message += "; no GPU memory is given back"
        self._paused = True
        self._emit(PausedChanged(paused=True, released=self._released, step=step))
        return message

    def _go_on(self, step: int) -> None:
        if self._released and self._actions.take_back is not None:
            self._actions.take_back()
        self._paused = self._released = False
        self._actions.restart_clock()
        self._emit(PausedChanged(paused=False, released=False, step=step))
