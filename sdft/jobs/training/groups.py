"""Which weights of the networks are trained, in groups of one learning rate.

In: the networks and what was asked for. Out: parameter groups for an optimizer; what is in none of
them is frozen.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch.nn import Module, Parameter

from sdft.events import Emit, Notice
from sdft.models.text import PREFIX, inner_model
from sdft.train.optim import finds_rate
from sdft.train.parts import TEXT_ENCODER, UNET, RateWishes, rates_of

LEAST_FACTOR = 0.1
"""D-Adaptation and Prodigy take a learning rate as a factor near 1. Source: sd-scripts warns at
0.1 and below."""


def named_weights(unet: Module, text_encoder: Module | None) -> dict[str, Parameter]:
    """Return weights under names that patterns are written for, whatever transformers is here."""
    named = {UNET + name: weight for name, weight in unet.named_parameters()}
    if text_encoder is not None:
        named |= {
            TEXT_ENCODER + name.removeprefix(PREFIX): weight
            for name, weight in text_encoder.named_parameters()
        }
    return named


def parameter_groups(
    unet: Module,
    text_encoder: Module | None,
    *,
    learning_rate: float,
    learning_rate_te: float | None,
    wishes: RateWishes,
    clip_skip: int | None,
    optimizer_type: str,
    emit: Emit,
) -> list[dict[str, Any]]:
    """Return groups with `params`, `lr` and `base_lr`; freeze every other weight.

    `text_encoder` is none where it is not trained.

    Raises: ConfigError where a pattern fits nothing, or nothing is trained.
    """
    named = named_weights(unet, text_encoder)
    base_rates = {
        UNET: learning_rate,
        TEXT_ENCODER: learning_rate if learning_rate_te is None else learning_rate_te,
    }
    rates = rates_of(list(named), base_rates=base_rates, wishes=wishes)
    if text_encoder is not None:
        rates |= dict.fromkeys(_unread(text_encoder, clip_skip), 0.0)
    if finds_rate(optimizer_type):
        rates = one_rate(rates, optimizer_type, emit)
    if any(rates.values()):
        frozen = [name for name in named if not rates[name]]
        for name in frozen:
            named[name].requires_grad_(False)
            del rates[name]
        _tell_frozen(named, frozen, emit)
    return groups_of(named, rates)


def groups_of(named: Mapping[str, Parameter], rates: Mapping[str, float]) -> list[dict[str, Any]]:
    """Return one group for each network and rate, in the order of the weights."""
    groups: dict[tuple[str, float], list[Parameter]] = {}
    for name, rate in rates.items():
        groups.setdefault((name.partition(".")[0], rate), []).append(named[name])
    return [
        {"params": weights, "lr": rate, "base_lr": rate} for (_, rate), weights in groups.items()
    ]


def _unread(text_encoder: Module, clip_skip: int | None) -> list[str]:
    """Return the weights of the last layers that `clip_skip` passes over: no gradient comes."""
    if clip_skip is None or clip_skip == 1:
        return []
    inner: Any = inner_model(text_encoder)
    first = len(inner.encoder.layers) - (clip_skip - 1)
    return [
        f"{TEXT_ENCODER}encoder.layers.{number}.{name}"
        for number, layer in enumerate(inner.encoder.layers)
        if number >= first
        for name, _ in layer.named_parameters()
    ]


def one_rate(rates: Mapping[str, float], optimizer_type: str, emit: Emit) -> dict[str, float]:
    """Give all weights that are trained the first rate: these optimizers take no others."""
    first = next((rate for rate in rates.values() if rate), 0.0)
    if {rate for rate in rates.values() if rate} - {first}:
        message = f"{optimizer_type} takes one learning rate; {first:g} is used for all weights"
        emit(Notice(severity="warning", topic="optimizer", message=message))
    if first <= LEAST_FACTOR:
        message = (
            f"{optimizer_type} finds its steps by itself and multiplies them by learning_rate;"
            f" {first:g} makes them very small, 1 is usual"
        )
        emit(Notice(severity="warning", topic="optimizer", message=message))
    return {name: first if rate else 0.0 for name, rate in rates.items()}


def _tell_frozen(named: Mapping[str, Parameter], frozen: list[str], emit: Emit) -> None:
    if not frozen:
        return
    whole = sum(weight.numel() for weight in named.values())
    held = sum(named[name].numel() for name in frozen)
    message = f"{held:,} of {whole:,} weights are not trained"
    emit(Notice(severity="info", topic="freeze", message=message))
