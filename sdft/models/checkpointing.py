"""Chooses which blocks of the U-Net compute their activations twice."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch.nn import Module
from torch.utils.checkpoint import checkpoint

from sdft.errors import ConfigError, nearest


def block_names(unet: UNet2DConditionModel) -> list[str]:
    """Return the names of the blocks that can be chosen, from the input to the output."""
    down = [f"down_blocks.{number}" for number in range(len(unet.down_blocks))]
    up = [f"up_blocks.{number}" for number in range(len(unet.up_blocks))]
    return [*down, "mid_block", *up]


def checkpoint_blocks(
    unet: UNet2DConditionModel, names: Sequence[str], *, call: Callable[..., Any] | None = None
) -> None:
    """Let the named blocks forget their activations and compute them again; no names mean all.

    `call` runs a block with its inputs in place of torch's own checkpoint.

    Raises: ConfigError for a name that is no block of this U-Net.
    """
    known = block_names(unet)
    for name in names:
        if name not in known:
            raise ConfigError(
                what=f'the U-Net has no block "{name}"',
                where="checkpoint_blocks",
                fix=nearest(name, known),
            )
    # diffusers' own choice of a function warns where the U-Net is compiled.
    unet.enable_gradient_checkpointing(call or partial(checkpoint, use_reentrant=False))
    if not names:
        return
    for name in known:
        if name not in names:
            _forget(unet.get_submodule(name))


def _forget(block: Module) -> None:
    for module in block.modules():
        if hasattr(module, "gradient_checkpointing"):
            module.gradient_checkpointing = False  # type: ignore[assignment]
