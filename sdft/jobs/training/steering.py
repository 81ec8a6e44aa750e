"""What a training does when it is asked from outside: by `sdft ctl` or by the dashboard.

In: the live parts of a run. Out: Actions for `Controlled`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from sdft.errors import UserError
from sdft.jobs.controlled import Actions
from sdft.jobs.training.networks import Networks
from sdft.jobs.training.safekeeping import scaled_rates
from sdft.jobs.training.watching import Watch
from sdft.train.checkpoint import file_name, step_stem
from sdft.train.meter import Meter
from sdft.train.optim import finds_rate
from sdft.train.optimizer_words import steps_are_relative


def build_actions(
    *,
    watch: Watch,
    networks: Networks,
    meter: Meter,
    optimizer_type: str,
    stop: Callable[[], None],
) -> Actions:
    """Return what can be asked of this training."""
    keeper = watch.keeper

    def save() -> str:
        progress = meter.progress
        stem = step_stem(keeper.output_name, progress.step)
        keeper.save_checkpoint(stem, progress)
        state = keeper.save_state(progress)
        return f"wrote {file_name(stem, keeper.form)} and the state {state.name}"

    def sample() -> str:
        if watch.sampling is None:
            raise UserError(what="there is nothing to draw", fix="set sample_prompts")
        return f"drew {watch.sampling.draw_now(meter)} pictures"

    def set_learning_rate(rate: float) -> str:
        if finds_rate(optimizer_type) or steps_are_relative(optimizer_type, {}):
            raise UserError(what=f"{optimizer_type} finds its learning rate by itself")
        changed = scaled_rates(networks.plain_optimizer, rate)
        return f"the learning rate was {changed['old']:g} and is {rate:g} before its schedule"

    # Spread weights belong to what brings them together, which does not see them move.
    can_move = networks.accelerator.device.type == "cuda" and networks.gather is None
    mover = _Mover(networks) if can_move else None
    return Actions(
        save=save,
        sample=sample,
        set_learning_rate=set_learning_rate,
        stop=stop,
        restart_clock=meter.restart_clock,
        release=mover.release if mover else None,
        take_back=mover.take_back if mover else None,
    )


class _Mover:
    """Moves weights and the optimizer's state off the device and back, bit by bit the same."""

    def __init__(self, networks: Networks) -> None:
        self._networks = networks
        self._home = networks.accelerator.device

    def release(self) -> None:
        self._move(torch.device("cpu"))
        torch.cuda.empty_cache()

    def take_back(self) -> None:
        self._move(self._home)

    def _move(self, device: torch.device) -> None:
        networks = self._networks
        for module in networks.modules().values():
            for weight in (*module.parameters(), *module.buffers()):
                weight.data = weight.data.to(device)
        for values in networks.plain_optimizer.state.values():
            for name, value in values.items():
                # Counts of steps stay where the optimizer put them.
                if isinstance(value, Tensor) and value.dim() > 0:
                    values[name] = value.to(device)
