"""Networks whose weights are spread over the processes of a run (FSDP2).

In: a network that every process holds. Out: the same network, of which each process holds some rows
of every tensor; a block's whole weights are there only while it computes. Whole tensors come back
one at a time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, Shard
from torch.nn import Module

from sdft.models.checkpointing import block_names
from sdft.models.text import inner_model


def shard_unet(
    unet: UNet2DConditionModel, mesh: DeviceMesh, *, reshard_after_forward: bool
) -> None:
    """Spread a U-Net block by block; each is on the mesh's device whole for a moment only."""
    blocks = [unet.get_submodule(name) for name in block_names(unet)]
    _shard(unet, blocks, mesh, reshard_after_forward=reshard_after_forward)


def shard_text_encoder(
    text_encoder: Module, mesh: DeviceMesh, *, reshard_after_forward: bool
) -> None:
    """Spread a text encoder layer by layer."""
    inner: Any = inner_model(text_encoder)
    _shard(text_encoder, inner.encoder.layers, mesh, reshard_after_forward=reshard_after_forward)


def _shard(
    network: Module, blocks: Sequence[Module], mesh: DeviceMesh, *, reshard_after_forward: bool
) -> None:
    for block in blocks:
        fully_shard(block, mesh=mesh, reshard_after_forward=reshard_after_forward)
    # What is in no block is used at both ends of the network, so the backward pass wants it at
    # once; and clip_skip uses the text encoder's last norm after its forward pass.
    fully_shard(network, mesh=mesh, reshard_after_forward=False)


def reshard(network: Module) -> None:
    """Let go of whole weights that a forward pass without a backward pass has left.

    They would be used in place of weights that have changed since.
    """
    for module in network.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def local_part(tensor: Tensor) -> Tensor:
    """Return what this process holds of a tensor: all of one that is not spread."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def whole(tensor: Tensor) -> Tensor:
    """Return all of a tensor, on its device. All processes have to ask for it.

    As DTensor.full_tensor does, without its general machinery, which takes 2 ms a tensor.
    """
    if not isinstance(tensor, DTensor):
        return tensor
    assert tensor.placements == (Shard(0),), tensor.placements
    group = tensor.device_mesh.get_group()
    num_rows, *rest = tensor.shape
    own = local_part(tensor.detach())
    # Each process has as many rows but for the last ones, which may have fewer or none.
    most = -(-num_rows // group.size())
    padded = own.new_zeros(most, *rest)
    padded[: len(own)] = own
    gathered = own.new_empty(most * group.size(), *rest)
    # The call for one large tensor has another name from torch 2.13 on, and the old one warns.
    dist.all_gather(list(gathered.chunk(group.size())), padded, group=group)
    return gathered[:num_rows]


def spread_like(live: Tensor, values: Tensor) -> Tensor:
    """Return `values`, whole and the same in every process, spread as `live` is.

    Only this process' rows go to the device of `live`.
    """
    if not isinstance(live, DTensor):
        return values
    if values.shape != live.shape:
        raise ValueError(f"a tensor of {tuple(values.shape)} where {tuple(live.shape)} is expected")
    mesh = live.device_mesh
    # The rows that fully_shard gives each process: as even as torch.chunk makes them.
    rows = torch.chunk(values, mesh.size(), dim=0)
    rank = mesh.get_local_rank()
    own = rows[rank] if rank < len(rows) else values[:0]
    return joined(own.to(live.device, copy=True), live)


def joined(own: Tensor, live: Tensor) -> Tensor:
    """Return this process' rows of a tensor as part of the whole, spread as `live` is."""
    if not isinstance(live, DTensor):
        return own
    return DTensor.from_local(
        own,
        live.device_mesh,
        live.placements,
        run_check=False,
        shape=live.shape,
        stride=live.stride(),
    )


def spread_all(live: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return `values` by name, each spread as the tensor of that name in `live` is."""
    return {
        name: spread_like(live[name], value) if name in live else value
        for name, value in values.items()
    }
