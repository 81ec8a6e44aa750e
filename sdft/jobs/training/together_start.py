"""How the processes of a run come together: alike, and from one state.

In: a Config, this process' place, a state. Out: a Team; the same state in every process.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from sdft import __version__
from sdft.config.load import Config
from sdft.config.write import resolved_toml
from sdft.errors import EnvironmentFault, UserError
from sdft.jobs.training.machine import ddp_wishes
from sdft.jobs.training.team import Team, joined
from sdft.jobs.training.visible import require_same_folder
from sdft.processes import Place
from sdft.train.state import SavedState


@contextmanager
def team_of(config: Config, place: Place) -> Iterator[Team]:
    """Join the processes of this run while the block runs.

    Raises: UserError where they were started differently; EnvironmentFault where they do not find
        each other.
    """
    settings = config.training
    if settings.num_processes not in (1, place.size):
        raise UserError(
            what=f"{place.size} processes were started, and num_processes is"
            f" {settings.num_processes}",
            fix="leave num_processes out: torchrun and accelerate launch have their own option",
        )
    on_gpu = settings.device != "cpu" and torch.cuda.is_available()
    if on_gpu:
        require_gpu(place, torch.cuda.device_count())
    with joined(place, on_gpu=on_gpu, timeout_s=ddp_wishes(settings).timeout_s) as team:
        team.require_alike(_facts(config, on_gpu=on_gpu))
        yield team


def require_gpu(place: Place, num_gpus: int) -> None:
    """Check that a process has a GPU of its own.

    Raises: EnvironmentFault.
    """
    if place.local_rank >= num_gpus:
        raise EnvironmentFault(
            what=f"{place} has no GPU: this machine has {num_gpus}",
            where="num_processes",
            fix=f"start {num_gpus} processes on this machine, or add --device cpu",
        )


def same_state(state: SavedState | None, team: Team) -> SavedState | None:
    """Return the main process' state in all of them.

    Each process holds all weights and the whole optimizer, so that the one state that the main
    process writes is whole, and any number of processes can read it.

    Raises: DataError where a process does not see its folder.
    """
    found = team.from_main(lambda: state)
    if found is not None and team.size > 1:
        require_same_folder(found.path, team)
    return found


def _facts(config: Config, *, on_gpu: bool) -> dict[str, str]:
    """Return what has to be the same in all processes."""
    facts = {"sdft": __version__, "torch": torch.__version__, "device": "cuda" if on_gpu else "cpu"}
    table, num_tables = "", 0
    for line in resolved_toml(config).splitlines():
        if line.startswith("[["):
            num_tables += 1
            table = f"{line.strip('[]')} ({num_tables}) "
        name, equals, value = line.partition(" = ")
        if equals:
            facts[table + name] = value
    return facts
