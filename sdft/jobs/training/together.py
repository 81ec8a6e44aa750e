"""What several processes have to agree on between two steps.

In: each process' wish to stop, its remarks about images, the main process' orders. Out: the same
answers in all of them, by one small exchange a step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sdft.control import Command, ControlInbox
from sdft.jobs.training.stopping import ASKED, INTERRUPTED, TERMINATED, TIME_LIMIT, StopRequest
from sdft.jobs.training.team import Team
from sdft.train.latents import Remark

_REASONS = (None, ASKED, TIME_LIMIT, TERMINATED, INTERRUPTED)
"""Where processes have different ones, the last counts."""


class Together:
    """Stands for the inbox, for the request to stop and for the teller of remarks."""

    def __init__(
        self,
        team: Team,
        stop: StopRequest,
        inbox: ControlInbox | None,
        say: Callable[[Sequence[Remark]], None],
    ) -> None:
        self._team = team
        self._stop = stop
        self._inbox = inbox
        """None but in the main process."""
        self._say = say
        self._reason: str | None = None
        self._remarks: list[Remark] = []
        self._commands: tuple[Command, ...] = ()
        self._counts: tuple[int, int] | None = None
        """How many commands and remarks the last exchange found, until `poll` has seen to them."""

    def __call__(self) -> str | None:
        """Return the reason to stop that the last exchange gave, the same in all processes."""
        return self._reason

    def say(self, remarks: Sequence[Remark]) -> None:
        """Keep remarks for the next exchange; the main process says those of all."""
        self._remarks += remarks

    def agree(self, wishes: Sequence[bool]) -> list[bool]:
        """Exchange; return which wishes any process has. The next `poll` has the rest of it."""
        self._commands = self._inbox.poll() if self._inbox is not None else ()
        own = [_REASONS.index(self._stop()), len(self._commands), len(self._remarks), *wishes]
        reason, num_commands, num_remarks, *wished = self._team.maxima(own)
        self._reason = _REASONS[reason]
        self._counts = num_commands, num_remarks
        return [bool(one) for one in wished]

    def poll(self) -> tuple[Command, ...]:
        """Return the orders that the main process has received; exchange, unless `agree` just did.

        Raises: in the main process what saying a remark raises.
        """
        if self._counts is None:
            self.agree(())
        assert self._counts is not None
        num_commands, num_remarks = self._counts
        commands, self._counts, self._commands = self._commands, None, ()
        if num_remarks:
            remarks, self._remarks = self._remarks, []
            for part in self._team.to_main(remarks):
                self._say(part)
        return self._team.from_main(lambda: commands) if num_commands else ()

    def answer(self, command_id: str, *, ok: bool, message: str) -> None:
        """Let the main process answer."""
        if self._inbox is not None:
            self._inbox.answer(command_id, ok=ok, message=message)
