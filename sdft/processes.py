"""Which of a run's processes this is, as the program that started it says in the environment.

`sdft --num_processes`, torchrun and accelerate launch set the same variables.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass

from sdft.errors import EnvironmentFault, UserError

STARTED_BY_SDFT = "SDFT_STARTED_PROCESSES"
"""Set by `--num_processes`: that program says itself how a process ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """One process among those of a run."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    """Among the processes of this machine."""
    attempt: int = 0
    """How often torchrun has started the processes again."""

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def __str__(self) -> str:
        return f"process {self.rank} of {self.size} on {platform.node()}"


ALONE = Place()


def own_place(environment: Mapping[str, str] = os.environ) -> Place:
    """Return this process' place.

    Raises: EnvironmentFault where the variables contradict each other.
    """
    if "WORLD_SIZE" not in environment:
        return ALONE
    try:
        place = Place(
            rank=int(environment.get("RANK", "0")),
            size=int(environment["WORLD_SIZE"]),
            local_rank=int(environment.get("LOCAL_RANK", environment.get("RANK", "0"))),
            attempt=int(environment.get("TORCHELASTIC_RESTART_COUNT", "0")),
        )
    except ValueError:
        place = Place(rank=-1)
    if not 0 <= place.rank < place.size:
        names = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
        raise EnvironmentFault(
            what="these variables do not name a process of a run",
            where=", ".join(f"{name}={environment.get(name, '')}" for name in names),
            fix="start the processes with --num_processes, torchrun or accelerate launch",
        )
    return place


def is_started_by_sdft(environment: Mapping[str, str] = os.environ) -> bool:
    return STARTED_BY_SDFT in environment


def require_all_started(command: str, environment: Mapping[str, str] = os.environ) -> None:
    """Check that accelerate has started the processes it was asked for; on a CPU it starts one.

    It then names a meeting place for several, and no place among them.

    Raises: UserError: one process would train with another batch than the one that was meant.
    """
    on_cpu = environment.get("ACCELERATE_USE_CPU", "false").lower() == "true"
    if on_cpu and "MASTER_ADDR" in environment and "WORLD_SIZE" not in environment:
        raise UserError(
            what="accelerate launch --cpu was asked for several processes and has started one, as"
            " it always does on a CPU",
            where="accelerate launch",
            fix=f"leave it out: sdft {command} ... --num_processes 2 starts them itself",
        )
