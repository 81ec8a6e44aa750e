"""The processes of one run as each of them sees the others.

In: this process' place. Out: a Team, by which they exchange plain values, always all of them in
the same order. What belongs to the gradients goes through accelerate.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from sdft.errors import (
    EnvironmentFault,
    PeerLost,
    Problem,
    SaidElsewhere,
    SdftError,
    UserError,
)
from sdft.processes import ALONE, Place

Value = TypeVar("Value")

JOIN_S = 300.0
"""How long the processes wait for each other at the start; loading torch takes seconds."""

TRY_S = 5.0
"""For one try to reach the main process, which may have another port by now."""

_MEETING_KEY = "sdft/meeting"

_TcpStore: Any = dist.TCPStore  # type: ignore[attr-defined]

EXCHANGE_TIMEOUT = timedelta(days=7)
"""One waits while another reads a whole dataset. A process that dies is noticed at once."""

MAX_DETAIL = 200
"""Characters of what torch says of a failed exchange."""

_CLOSED = ("Connection closed by peer", "Connection reset by peer")
"""What gloo says where a process is gone."""

LAST_WORDS_S = 30.0
"""How long the others let the main process say what ends all of them."""


class Team:
    """Every method that exchanges something has to be called by all processes."""

    def __init__(
        self, place: Place = ALONE, *, store: Any = None, group: dist.ProcessGroup | None = None
    ) -> None:
        self.place = place
        self._store = store
        self._group = group

    @property
    def rank(self) -> int:
        return self.place.rank

    @property
    def size(self) -> int:
        return self.place.size

    @property
    def is_main(self) -> bool:
        return self.place.is_main

    def from_main(self, make: Callable[[], Value]) -> Value:
        """Let the main process make a value and give it to all.

        Where it fails it ends with its own error, and the others with PeerLost.
        """
        if self.size == 1:
            return make()
        box: list[Any] = [make() if self.is_main else None]
        with exchanging():
            dist.broadcast_object_list(box, src=0, group=self._group)
        value: Value = box[0]
        return value

    def gathered(self, value: Value) -> list[Value]:
        """Return what each process has, by rank."""
        if self.size == 1:
            return [value]
        box: list[Any] = [None] * self.size
        with exchanging():
            dist.all_gather_object(box, value, group=self._group)
        return box

    def to_main(self, value: Value) -> list[Value]:
        """Return what each process has, by rank, in the main process; nothing in the others."""
        if self.size == 1:
            return [value]
        box: list[Any] | None = [None] * self.size if self.is_main else None
        with exchanging():
            dist.gather_object(value, box, dst=0, group=self._group)
        return box or []

    def maxima(self, numbers: Sequence[int]) -> list[int]:
        """Return the largest of each number over all processes."""
        if self.size == 1:
            return list(numbers)
        values = torch.tensor(list(numbers), dtype=torch.int64)
        with exchanging():
            dist.all_reduce(values, op=dist.ReduceOp.MAX, group=self._group)
        return [int(value) for value in values]

    def in_turn(self, make: Callable[[], Value]) -> Value:
        """Let the first process of each machine make a value, then the others their own.

        The others then find in the machine's memory what the first has read from the disk.
        """
        if self.size == 1:
            return make()
        first = self.place.local_rank == 0
        value = make() if first else None
        self.meet()
        return make() if value is None else value

    def meet(self) -> None:
        """Return when all have come here."""
        self.maxima([0])

    def count(self, name: str, number: int) -> int:
        """Add to a count that all share and return it; no process waits for another.

        One process counts by itself: 0.
        """
        if self._store is None:
            return 0
        with exchanging():
            return int(self._store.add(f"sdft/{name}", number))

    def require_none(self, problems: Sequence[Problem], kind: type[SdftError] = UserError) -> None:
        """Go on where no process has a problem.

        Raises: in the main process an error that names each problem's process, in the others
            SaidElsewhere.
        """
        found = self.gathered([(str(self.place), one) for one in problems])
        if not any(found):
            return
        if self.size > 1 and not self.is_main:
            raise SaidElsewhere("a process has a problem", exit_code=kind.exit_code)
        raise kind(
            problems=[
                Problem(
                    what=f"{who}: {one.what}" if self.size > 1 else one.what,
                    where=one.where,
                    fix=one.fix,
                )
                for part in found
                for who, one in part
            ]
        )

    def require_alike(self, values: Mapping[str, str]) -> None:
        """Check that all processes were started alike.

        Raises: as `require_none`, naming what differs from the main process.
        """
        if self.size == 1:
            return
        mains = self.from_main(lambda: dict(values))
        differing = [
            f"{name} is {values.get(name, 'not set')}, and {mains.get(name, 'not set')} in process"
            " 0"
            for name in dict.fromkeys([*mains, *values])
            if values.get(name) != mains.get(name)
        ]
        self.require_none(
            [
                Problem(
                    what="it was started with other settings: " + "; ".join(differing),
                    fix="start all processes with the same command, files and version",
                )
            ]
            if differing
            else []
        )

    @contextmanager
    def exchanging(self) -> Iterator[None]:
        """Turn what the loss of another process raises in the block into PeerLost."""
        if self.size == 1:
            yield
            return
        with exchanging(only_lost=True):
            yield

    def let_main_end(self) -> None:
        """Wait until the main process is gone: whoever starts processes ends all when one ends."""
        if self.size == 1 or self.is_main:
            return
        with suppress(RuntimeError):
            waiting = dist.broadcast(torch.zeros(1), src=0, group=self._group, async_op=True)
            if waiting is not None:
                waiting.wait(timedelta(seconds=LAST_WORDS_S))


ONLY_ONE = Team()


@contextmanager
def joined(place: Place, *, on_gpu: bool, timeout_s: float | None = None) -> Iterator[Team]:
    """Join the processes of a run while the block runs. `timeout_s` bounds an exchange of
    gradients.

    Raises: EnvironmentFault where they do not find each other; PeerLost for what the loss of
        another process causes in the block.
    """
    if place.size == 1:
        yield ONLY_ONE
        return
    store = _meeting_place(place)
    if on_gpu:
        torch.cuda.set_device(place.local_rank)
    try:
        dist.init_process_group(
            # Plain values go by the processors, whatever the gradients take.
            "cpu:gloo,cuda:nccl" if on_gpu else "gloo",
            store=store,
            rank=place.rank,
            world_size=place.size,
            timeout=None if timeout_s is None else timedelta(seconds=timeout_s),
        )
        group = dist.new_group(backend="gloo", timeout=EXCHANGE_TIMEOUT)
    except (RuntimeError, ValueError) as error:
        raise _did_not_join(place, error) from error
    team = Team(place, store=store, group=group)
    try:
        with exchanging(only_lost=True):
            yield team
    except SaidElsewhere as error:
        if not isinstance(error, PeerLost):
            team.let_main_end()
        raise
    else:
        with suppress(PeerLost):
            team.meet()
        dist.destroy_process_group()


@contextmanager
def exchanging(*, only_lost: bool = False) -> Iterator[None]:
    """Turn what an exchange raises when another process has died into PeerLost."""
    try:
        yield
    except RuntimeError as error:
        if only_lost and not is_peer_lost(error):
            raise
        text = str(error).partition("\n")[0][:MAX_DETAIL]
        detail = "" if any(mark in text for mark in _CLOSED) else f" ({text})"
        raise PeerLost(f"another process of this run has ended{detail}") from error


def is_peer_lost(error: RuntimeError) -> bool:
    """Tell whether an error comes from exchanging with a process that is gone."""
    if isinstance(error, dist.DistError):
        return True
    text = str(error)
    return any(mark in text for mark in ("gloo/transport", "Connection closed by peer", "NCCL"))


def _meeting_place(place: Place) -> Any:
    """Return the store by which the processes find each other.

    Raises: EnvironmentFault.
    """
    try:
        if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
            return _store_beside_the_agents(place)
        meeting = dist.rendezvous(  # type: ignore[attr-defined]
            "env://", place.rank, place.size, timeout=timedelta(seconds=JOIN_S)
        )
        store, _, _ = next(meeting)
        return store
    except (RuntimeError, ValueError) as error:
        raise _did_not_join(place, error) from error


def _store_beside_the_agents(place: Place) -> Any:
    """Return a store of this start's own, found by way of the one that torchrun's agents share.

    The agents' store still has what was written before a new start, and tells starts apart by a
    count that differs between the agents where a machine was lost.
    """
    host = os.environ["MASTER_ADDR"]
    wait = timedelta(seconds=JOIN_S)
    agents = _TcpStore(host, int(os.environ["MASTER_PORT"]), is_master=False, timeout=wait)
    if place.is_main:
        own = _TcpStore(host, 0, is_master=True, timeout=wait, wait_for_workers=False)
        agents.set(_MEETING_KEY, str(own.port))
        return own
    deadline_s = time.monotonic() + JOIN_S
    while True:
        # Perhaps still that of the start before, whose process is gone.
        port = int(agents.get(_MEETING_KEY))
        if _is_listening(host, port):
            return _TcpStore(host, port, is_master=False, timeout=wait)
        if time.monotonic() > deadline_s:
            raise dist.DistNetworkError(f"nobody listens at {host}:{port}")
        time.sleep(TRY_S / 10)


def _is_listening(host: str, port: int) -> bool:
    """Tell whether a connection can be made; torch's own try prints pages where it cannot."""
    try:
        with socket.create_connection((host, port), timeout=TRY_S):
            return True
    except OSError:
        return False


def _did_not_join(place: Place, error: Exception) -> EnvironmentFault:
    address = f"{os.environ.get('MASTER_ADDR', '')}:{os.environ.get('MASTER_PORT', '')}"
    if "EADDRINUSE" in str(error) or "address already in use" in str(error).lower():
        return EnvironmentFault(
            what=f"{place}: the port is in use by another program",
            where=address,
            fix="choose another with --main_process_port (torchrun: --master-port), or end that"
            " program",
        )
    return EnvironmentFault(
        what=f"{place}: the processes did not find each other: {error}",
        where=address,
        fix="every process needs the same MASTER_ADDR and MASTER_PORT, and all have to be started",
    )
