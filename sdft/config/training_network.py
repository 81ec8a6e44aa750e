"""Settings of a hypernetwork that is trained in place of the model: the [network] table."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator

from sdft.config.choices import ACTIVATIONS, canonical
from sdft.config.settings import setting

MAX_LAYERS = 64
MAX_FACTOR = 64.0
"""Of layer_structure. A layer 64 times as wide as 1280 has 100 million weights."""


def numbers(value: object) -> object:
    """Read `1,2,1`, `1 2 1` or a list of numbers.

    Raises: ValueError for what is no number.
    """
    parts = [value] if isinstance(value, str | int | float) else value
    if not isinstance(parts, list | tuple):
        return parts
    return tuple(float(one) for part in parts for one in str(part).replace(",", " ").split())


def _known_activation(name: str) -> str:
    spelling = canonical(name, ACTIVATIONS)
    if spelling not in ACTIVATIONS:
        raise ValueError("unknown name")
    return spelling


ActivationName = Annotated[str, AfterValidator(_known_activation)]
Numbers = Annotated[tuple[float, ...], BeforeValidator(numbers)]


class NetworkSettings(
    BaseModel, frozen=True, extra="forbid", allow_inf_nan=False, defer_build=True
):
    """The part of the training settings that says what a hypernetwork is made of."""

    hypernetwork: bool = setting(
        False,
        help="Train a hypernetwork; the model itself stays as it is.",
        group="network",
    )
    network_weights: Path | None = setting(
        None,
        help="Hypernetwork file to go on from, .pt or .safetensors; its layers are taken over.",
        group="network",
    )
    network_mul: float = setting(
        1.0, gt=0, help="Strength of the hypernetwork while it is trained.", group="network"
    )
    layer_structure: Numbers = setting(
        (1.0, 2.0, 1.0),
        help="Widths of a module's layers, in units of its own width.",
        group="network",
        wanted="numbers above 0 that begin and end with 1, such as 1,2,1",
    )
    activation_func: ActivationName = setting(
        "linear",
        help="Activation behind each linear layer but the last; linear is none.",
        group="network",
        choices=ACTIVATIONS,
    )
    activate_output: bool = setting(
        False, help="Put the activation behind the last linear layer too.", group="network"
    )
    add_layer_norm: bool = setting(
        False, help="Normalise behind each linear layer.", group="network"
    )
    use_dropout: bool = setting(
        False, help="Leave values out at random while training.", group="network"
    )
    dropout_structure: Numbers = setting(
        (),
        help="Share left out behind each entry of layer_structure; 0.3 within if not set.",
        group="network",
        wanted="as many numbers from 0 to below 1 as layer_structure has, such as 0,0.3,0",
    )
    last_layer_dropout: bool = setting(
        False, help="With use_dropout, also behind the last layer but one.", group="network"
    )
    weight_initialization: Literal[
        "Normal", "XavierUniform", "XavierNormal", "KaimingUniform", "KaimingNormal"
    ] = setting("Normal", help="How the first weights are drawn.", group="network")
