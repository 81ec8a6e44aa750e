"""The timestep of each item, drawn at the item's own address."""

from __future__ import annotations

from sdft.streams import Address


def draw_timestep(address: Address, *, min_timestep: int, max_timestep: int) -> int:
    """Draw uniformly from min_timestep .. max_timestep - 1; where that is empty, return the upper.

    Units: steps of the noise schedule, 0 (least noise) to 999.
    """
    if min_timestep >= max_timestep:
        return max_timestep
    return address.stream("timestep").randrange(min_timestep, max_timestep)
