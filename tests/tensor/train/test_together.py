"""Processes agree between two steps by one exchange."""

from __future__ import annotations

from collections.abc import Sequence

from sdft.control import Command
from sdft.jobs.training.stopping import ASKED
from sdft.jobs.training.team import Team
from sdft.jobs.training.together import Together


class CountingTeam(Team):
    """One process, which counts its exchanges."""

    def __init__(self) -> None:
        super().__init__()
        self.exchanged: list[list[int]] = []

    def maxima(self, numbers: Sequence[int]) -> list[int]:
        self.exchanged.append(list(numbers))
        return super().maxima(numbers)


class Inbox:
    def __init__(self, *commands: Command) -> None:
        self.commands = list(commands)

    def poll(self) -> tuple[Command, ...]:
        found, self.commands = tuple(self.commands), []
        return found


def order(name="save"):
    return Command(id="1", name=name, arguments={}, time_s=0.0, sender="test")


def together(*commands, reason=None, said=None):
    team = CountingTeam()
    say = (lambda remarks: None) if said is None else said.extend
    return team, Together(team, lambda: reason, Inbox(*commands), say)  # type: ignore[arg-type]


def test_what_is_due_and_what_was_ordered_go_by_one_exchange():
    team, agreed = together(order(), reason=ASKED)
    assert agreed.agree([True, False, False]) == [True, False, False]
    assert [one.id for one in agreed.poll()] == ["1"]
    assert agreed() == ASKED
    assert len(team.exchanged) == 1


def test_who_only_waits_for_orders_exchanges_each_time():
    team, agreed = together(order())
    agreed.agree([False])
    assert len(agreed.poll()) == 1
    assert agreed.poll() == agreed.poll() == ()
    assert len(team.exchanged) == 3


def test_an_order_that_comes_after_the_exchange_waits_for_the_next_one():
    team, agreed = together()
    agreed.agree([False])
    agreed._inbox.commands.append(order())
    assert agreed.poll() == ()
    agreed.agree([True])
    assert len(agreed.poll()) == 1
    assert len(team.exchanged) == 2
