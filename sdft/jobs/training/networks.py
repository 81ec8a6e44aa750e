"""Prepares the networks of a run: what is trained, with which optimizer, on which device.

In: a loaded bundle and the accelerator. Out: Networks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor
from torch.nn import Module, Parameter

from sdft.events import Emit
from sdft.models.bundle import ModelBundle
from sdft.models.text import encode_chunks, state_for, text_state_dict
from sdft.train.optim import build_optimizer
from sdft.train.step import EncodeText


@dataclass(frozen=True, kw_only=True)
class Networks:
    """The networks of a run, on their device."""

    bundle: ModelBundle
    accelerator: Accelerator
    unet: Module
    """As `Accelerator.prepare` returned it."""
    text_encoder: Module
    """The same, where it is trained."""
    trains_text: bool
    optimizer: Any
    parameters: tuple[Parameter, ...]
    encode_text: EncodeText

    @property
    def plain_unet(self) -> Any:
        return self.accelerator.unwrap_model(self.unet)

    @property
    def plain_text_encoder(self) -> Any:
        return self.accelerator.unwrap_model(self.text_encoder)

    @property
    def trained_modules(self) -> tuple[Module, ...]:
        return (self.unet, self.text_encoder) if self.trains_text else (self.unet,)

    def trained_weights(self) -> dict[str, Mapping[str, Tensor]]:
        """Return the weights that training changes, by the file stem of their part of a state."""
        weights: dict[str, Mapping[str, Tensor]] = {"unet": self.plain_unet.state_dict()}
        if self.trains_text:
            weights["text_encoder"] = text_state_dict(self.plain_text_encoder)
        return weights

    def load_weights(self, stem: str, weights: Mapping[str, Tensor]) -> None:
        """Put weights of a state back; every one has to be there."""
        if stem == "text_encoder":
            self.plain_text_encoder.load_state_dict(
                state_for(self.plain_text_encoder, dict(weights))
            )
        else:
            assert stem == "unet", stem
            self.plain_unet.load_state_dict(weights)

    def optimizer_state(self) -> dict[str, Any]:
        """Return the optimizer's state and, under fp16, the loss scale."""
        state = {"optimizer": self.optimizer.state_dict()}
        if self.accelerator.scaler is not None:
            state["scaler"] = self.accelerator.scaler.state_dict()
        return state

    def load_optimizer_state(self, state: Mapping[str, Any]) -> None:
        self.optimizer.load_state_dict(state["optimizer"])
        if self.accelerator.scaler is not None and "scaler" in state:
            self.accelerator.scaler.load_state_dict(state["scaler"])


def prepare_networks(
    bundle: ModelBundle,
    accelerator: Accelerator,
    *,
    train_text_encoder: bool,
    learning_rate: float,
    learning_rate_te: float | None,
    optimizer_type: str,
    optimizer_arguments: Mapping[str, Any],
    gradient_checkpointing: bool,
    clip_skip: int | None,
    frozen_dtype: torch.dtype,
    emit: Emit,
) -> Networks:
    """Put the U-Net and the text encoder on the device and give them an optimizer.

    Weights that are trained stay in float32, those that are not become `frozen_dtype`.

    Raises: what `build_optimizer` raises.
    """
    unet = bundle.unet.train().requires_grad_(True)
    text_encoder = bundle.text_encoder.requires_grad_(train_text_encoder)
    groups = [_group(unet, learning_rate)]
    if train_text_encoder:
        text_encoder.train()
        rate = learning_rate if learning_rate_te is None else learning_rate_te
        groups.append(_group(text_encoder, rate))
    else:
        text_encoder.to(accelerator.device, frozen_dtype)
    if gradient_checkpointing:
        unet.enable_gradient_checkpointing()
        if train_text_encoder:
            text_encoder.gradient_checkpointing_enable()
    optimizer = build_optimizer(
        optimizer_type, groups, lr=learning_rate, arguments=optimizer_arguments, emit=emit
    )
    trained: Sequence[Module] = (unet, text_encoder) if train_text_encoder else (unet,)
    *prepared, optimizer = accelerator.prepare(*trained, optimizer)
    live_text_encoder = prepared[1] if train_text_encoder else text_encoder
    return Networks(
        bundle=bundle,
        accelerator=accelerator,
        unet=prepared[0],
        text_encoder=live_text_encoder,
        trains_text=train_text_encoder,
        optimizer=optimizer,
        parameters=tuple(p for module in trained for p in module.parameters()),
        encode_text=text_reader(
            bundle, live_text_encoder, clip_skip=clip_skip, trains=train_text_encoder
        ),
    )


def text_reader(
    bundle: ModelBundle, text_encoder: Any, *, clip_skip: int | None, trains: bool
) -> EncodeText:
    """Return what turns token ids [B, K, 77] into contexts [B, S, D]."""

    def encode(ids_BKS: Tensor) -> Tensor:
        with nullcontext() if trains else torch.no_grad():
            return encode_chunks(
                text_encoder, ids_BKS, clip_skip=clip_skip, tokenizer=bundle.tokenizer
            )

    return encode


def _group(module: Module, rate: float) -> dict[str, Any]:
    return {"params": list(module.parameters()), "lr": rate, "base_lr": rate}
