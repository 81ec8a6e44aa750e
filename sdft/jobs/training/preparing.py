"""Prepares the networks of a run: what is trained, with which optimizer, on which device.

In: a loaded bundle and the accelerator. Out: Networks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from accelerate import Accelerator
from torch.nn import Module, Parameter

from sdft.events import Emit, Notice
from sdft.jobs.training.chunking import ChunkWishes, chunked_optimizer, fused_backward
from sdft.jobs.training.device_use import DeviceUse, use_device
from sdft.jobs.training.groups import named_weights, parameter_groups
from sdft.jobs.training.networks import AverageWishes, Networks, TrainedPrecision, text_reader
from sdft.jobs.training.sharding import ShardWishes, shard_networks
from sdft.models.bundle import ModelBundle
from sdft.models.digest import weights_fingerprint
from sdft.train.ema import MovingAverage
from sdft.train.fused_backward import FusedBackward
from sdft.train.optim import build_optimizer
from sdft.train.own_parts import OwnParts
from sdft.train.parts import RateWishes
from sdft.train.rounding import StochasticRounding
from sdft.train.scaler import LossScaler

_NO_WISHES = RateWishes()
_FLOAT32 = TrainedPrecision()
_NO_CHUNKS = ChunkWishes()
_PLAIN_USE = DeviceUse()


def prepare_networks(
    bundle: ModelBundle,
    accelerator: Accelerator,
    *,
    train_text_encoder: bool,
    learning_rate: float,
    learning_rate_te: float | None,
    optimizer_type: str,
    optimizer_arguments: Mapping[str, Any],
    clip_skip: int | None,
    frozen_dtype: torch.dtype,
    emit: Emit,
    wishes: RateWishes = _NO_WISHES,
    precision: TrainedPrecision = _FLOAT32,
    average: AverageWishes | None = None,
    chunks: ChunkWishes = _NO_CHUNKS,
    use: DeviceUse = _PLAIN_USE,
    shards: ShardWishes | None = None,
    seed: int = 0,
) -> Networks:
    """Put the U-Net and the text encoder on the device and give them an optimizer.

    A network that is trained, frozen parts of it included, gets the dtype that `precision` asks
    for; one that is not becomes `frozen_dtype`. `shards` spreads what is trained over the
    processes. `seed` is that of stochastic rounding.

    Raises: what `parameter_groups` and `build_optimizer` raise.
    """
    unet = bundle.unet.train().requires_grad_(True)
    text_encoder = bundle.text_encoder.requires_grad_(train_text_encoder)
    # Before the optimizer is made: its state follows device and dtype of the weights.
    text_dtype = precision.weights if train_text_encoder else frozen_dtype
    text_encoder.train(train_text_encoder)
    trained_text = text_encoder if train_text_encoder else None
    for module, dtype in ((unet, precision.weights), (text_encoder, text_dtype)):
        # What is spread never lies on one device as a whole.
        is_spread = shards is not None and module in (unet, trained_text)
        # diffusers' own `to` warns of every change of dtype.
        Module.to(module, "cpu" if is_spread else accelerator.device, dtype)
    trained: list[Any] = [unet] if trained_text is None else [unet, trained_text]
    own_parts, spread_from = None, None
    if shards is not None:
        spread_from = weights_fingerprint(unet.state_dict())
        # Before the groups are made: the weights become other objects.
        trained = shard_networks(unet, trained_text, accelerator, shards)
    groups = parameter_groups(
        unet,
        trained_text,
        learning_rate=learning_rate,
        learning_rate_te=learning_rate_te,
        wishes=wishes,
        clip_skip=clip_skip,
        optimizer_type=optimizer_type,
        emit=emit,
    )
    parameters = tuple(weight for group in groups for weight in group["params"])
    use_device(unet, trained_text, use)
    if shards is not None:
        own_parts = OwnParts(parameters)
        groups = own_parts.groups(groups)
        emit(_spread_notice(parameters, own_parts, accelerator.num_processes))
    optimizer, rounding, fused = make_optimizer(
        optimizer_type,
        groups,
        parameters,
        lr=learning_rate,
        arguments=optimizer_arguments,
        stochastic_rounding=precision.stochastic_rounding,
        chunks=chunks,
        seed=seed,
        emit=emit,
    )
    if shards is None:
        # One in chunks is no optimizer of torch's, and passes through as it is.
        *trained, optimizer = accelerator.prepare(*trained, optimizer)
    else:
        optimizer = accelerator.prepare(optimizer)
    live_text_encoder = trained[1] if train_text_encoder else text_encoder
    return Networks(
        bundle=bundle,
        accelerator=accelerator,
        unet=trained[0],
        text_encoder=live_text_encoder,
        trains_text=train_text_encoder,
        optimizer=optimizer,
        parameters=parameters,
        encode_text=text_reader(
            bundle, live_text_encoder, clip_skip=clip_skip, trains=train_text_encoder
        ),
        precision=precision,
        scaler=LossScaler() if precision.scales_loss else None,
        rounding=rounding,
        fused=fused,
        average=make_average(average, named_weights(unet, trained_text), accelerator),
        own_parts=own_parts,
        spread_from=spread_from,
    )


def _spread_notice(weights: Sequence[Parameter], own: OwnParts, num_processes: int) -> Notice:
    held, total = (sum(one.numel() for one in each) for each in (own.parts, weights))
    message = (
        f"weights are spread over {num_processes} processes: this one holds {held:,} of {total:,}"
        " trained values"
    )
    return Notice(severity="info", topic="fsdp", message=message)


def make_optimizer(
    name: str,
    groups: list[dict[str, Any]],
    parameters: Sequence[Parameter],
    *,
    lr: float,
    arguments: Mapping[str, Any],
    stochastic_rounding: bool,
    chunks: ChunkWishes,
    seed: int,
    emit: Emit,
) -> tuple[Any, StochasticRounding | None, FusedBackward | None]:
    """Return the optimizer, and what rounds its updates or steps it in the backward pass."""
    if chunks.any:
        chunked = chunked_optimizer(
            name,
            groups,
            lr=lr,
            arguments=arguments,
            wishes=chunks,
            rounding_seed=seed if stochastic_rounding else None,
            emit=emit,
        )
        return chunked, None, fused_backward(chunked, chunks, emit)
    rounding = None
    if stochastic_rounding:
        rounding = StochasticRounding(parameters, seed=seed)
        groups = rounding.groups(groups)
    return build_optimizer(name, groups, lr=lr, arguments=arguments, emit=emit), rounding, None


def make_average(
    wishes: AverageWishes | None, named: Mapping[str, Parameter], accelerator: Accelerator
) -> MovingAverage | None:
    """Return what averages those of the named weights that are trained, if it was asked for."""
    if wishes is None:
        return None
    trained = {name: weight for name, weight in named.items() if weight.requires_grad}
    device = torch.device("cpu") if wishes.on_cpu else accelerator.device
    return MovingAverage(trained, decay=wishes.decay, device=device)
