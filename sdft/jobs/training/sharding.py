"""A run whose weights, gradients and optimizer state are spread over its processes (FSDP2).

In: the settings, the processes, networks in main memory. Out: the networks spread; whole copies
for files, in the process that writes them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from accelerate import Accelerator
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.nn import Module

from sdft.config.load import Config
from sdft.events import Emit, SettingChosen
from sdft.models.sharding import shard_text_encoder, shard_unet, whole
from sdft.train.plain_tensors import with_each_tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardWishes:
    """How weights are spread over the processes."""

    reshard_after_forward: bool = True
    """Whether a block's whole weights are let go between its forward and its backward pass."""


def settle_sharding(config: Config, num_processes: int, emit: Emit) -> Config:
    """Return the config with what follows from spread weights, and say it."""
    settings = config.training
    if not settings.fsdp:
        return config
    chosen: dict[str, tuple[object, str]] = {}
    if num_processes == 1:
        chosen["fsdp"] = (False, "there is one process")
    else:
        if settings.channels_last is None:
            chosen["channels_last"] = (False, "fsdp takes tensors in torch's usual order")
        if settings.ema and settings.ema_device == "cpu":
            chosen["ema_device"] = ("same", "with fsdp each process keeps only its part")
    for name, (value, reason) in chosen.items():
        emit(SettingChosen(name=name, value=value, reason=reason))
    return config.with_training(**{name: value for name, (value, _) in chosen.items()})


def shard_networks(
    unet: Any, text_encoder: Module | None, accelerator: Accelerator, wishes: ShardWishes
) -> list[Any]:
    """Spread the networks that are trained over all processes; return them as they are called.

    Not by accelerate, whose FSDP2 is plain DDP on a CPU and says nothing of it.
    """
    mesh = init_device_mesh(accelerator.device.type, (accelerator.num_processes,))
    shard_unet(unet, mesh, reshard_after_forward=wishes.reshard_after_forward)
    networks = [unet]
    if text_encoder is not None:
        shard_text_encoder(text_encoder, mesh, reshard_after_forward=wishes.reshard_after_forward)
        networks.append(text_encoder)
    # In this mode it adds autocast, and no DDP around it.
    return [
        accelerator.prepare_model(one, device_placement=False, evaluation_mode=True)
        for one in networks
    ]


def gathered(value: Any, *, keep: bool) -> Any:
    """Return the same value with whole copies of its tensors in main memory.

    All processes have to call it. One tensor after the other is whole on the device; only who is
    to `keep` them holds them together, and the others get empty ones.
    """

    def copied(tensor: Tensor) -> Tensor:
        found = whole(tensor.detach())
        return found.to("cpu", copy=True) if keep else found.new_empty(0, device="cpu")

    return with_each_tensor(value, copied)
