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

    def __call__(self) -> str | None:
        """Return the reason to stop that the last exchange gave, the same in all processes."""
        return self._reason

    def say(self, remarks: Sequence[Remark]) -> None:
        """Keep remarks for the next exchange; the main process says those of all."""
        self._remarks += remarks

    def poll(self) -> tuple[Command, ...]:
        """Exchange; return the orders that the main process has received.

        Raises: in the main process what saying a remark raises.
        """
        commands = self._inbox.poll() if self._inbox is not None else ()
        reason, num_commands, num_remarks = self._team.maxima(
            [_REASONS.index(self._stop()), len(commands), len(self._remarks)]
        )
        self._reason = _REASONS[reason]
        if num_remarks:
            remarks, self._remarks = self._remarks, []
            for part in self._team.to_main(remarks):
                self._say(part)
        return self._team.from_main(lambda: commands) if num_commands else ()

    def answer(self, command_id: str, *, ok: bool, message: str) -> None:
        """Let the main process answer."""
        if self._inbox is not None:
            self._inbox.answer(command_id, ok=ok, message=message)
