"""Of which layers a hypernetwork's module is made. Needs no torch.

In: the choices that the AUTOMATIC1111 web UI offers. Out: the layers in order; a layer's place in
that order is the number in its tensors' names, `linear.<place>.weight`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from sdft.config.choices import ACTIVATIONS
from sdft.config.training_network import MAX_FACTOR, MAX_LAYERS

LINEAR = "linear"
NORMAL = "Normal"

DROPOUT = 0.3
"""The share that the web UI leaves out where only `use_dropout` is said."""


@dataclass(frozen=True, slots=True)
class Layer:
    """One entry of the stack."""

    kind: str
    """`linear`, `activation`, `norm` or `dropout`."""
    width_in: int
    width_out: int
    rate: float = 0.0
    """Of a dropout."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Structure:
    """What decides the layers."""

    layers: tuple[float, ...]
    """Widths after each linear layer, the input's first, in units of the module's own width."""
    activation: str
    has_norm: bool
    activates_output: bool
    dropout: tuple[float, ...]
    """Rates, one for each entry of `layers`; the first belongs to the input and counts nothing."""

    @classmethod
    def of(
        cls,
        *,
        layer_structure: Sequence[float],
        activation_func: str,
        is_layer_norm: bool,
        use_dropout: bool,
        activate_output: bool,
        last_layer_dropout: bool,
        dropout_structure: Sequence[float] | None,
    ) -> Structure:
        count = len(layer_structure)
        rates = [0.0] * count
        if use_dropout and dropout_structure:
            rates = list(dropout_structure)
        elif use_dropout:
            # Neither the last linear layer nor, unless it is asked for, the one before it.
            last = count - 1 if last_layer_dropout else count - 2
            rates = [DROPOUT if 0 < place < last else 0.0 for place in range(count)]
        return cls(
            layers=tuple(layer_structure),
            activation=activation_func.lower(),
            has_norm=is_layer_norm,
            activates_output=activate_output,
            dropout=tuple(rates),
        )

    @property
    def is_random(self) -> bool:
        """Whether a pass in training draws random numbers."""
        return any(self.dropout[1:]) or self.activation == "rrelu"

    def mistakes(self) -> list[str]:
        """Return in words why there can be no such stack."""
        found = []
        count = len(self.layers)
        if not 2 <= count <= MAX_LAYERS or self.layers[0] != 1 or self.layers[-1] != 1:
            found.append("layer_structure must begin and end with 1")
        elif not all(0 < factor <= MAX_FACTOR for factor in self.layers):
            found.append(f"layer_structure must hold numbers above 0, up to {MAX_FACTOR:g}")
        if self.activation != LINEAR and self.activation not in ACTIVATIONS:
            found.append(f'there is no activation "{self.activation[:40]}" that fits')
        if len(self.dropout) != count:
            found.append("dropout_structure must have as many numbers as layer_structure")
        elif not all(0 <= rate < 1 for rate in self.dropout):
            found.append("dropout_structure must hold numbers from 0 to below 1")
        return found

    def words(self) -> str:
        """Say it in a few words."""
        parts = [" - ".join(f"{factor:g}" for factor in self.layers), self.activation]
        if self.activation != LINEAR and self.activates_output:
            parts.append("output activated")
        if self.has_norm:
            parts.append("layer norm")
        if any(self.dropout[1:]):
            parts.append("dropout " + " ".join(f"{rate:g}" for rate in self.dropout))
        return ", ".join(parts)


def stack_of(structure: Structure, width: int) -> list[Layer]:
    """Return the layers of a module of this width, in order."""
    widths = [math.floor(width * factor) for factor in structure.layers]
    layers = []
    for place in range(1, len(widths)):
        width_in, width_out = widths[place - 1], widths[place]
        layers.append(Layer("linear", width_in, width_out))
        is_last = place == len(widths) - 1
        if structure.activation != LINEAR and (structure.activates_output or not is_last):
            layers.append(Layer("activation", width_out, width_out))
        if structure.has_norm:
            layers.append(Layer("norm", width_out, width_out))
        if structure.dropout[place] > 0:
            layers.append(Layer("dropout", width_out, width_out, structure.dropout[place]))
    return layers


def tensors_of(structure: Structure, width: int) -> dict[str, tuple[int, ...]]:
    """Return the shapes of a module's tensors by name."""
    shapes: dict[str, tuple[int, ...]] = {}
    for place, layer in enumerate(stack_of(structure, width)):
        if layer.kind == "linear":
            shapes[f"linear.{place}.weight"] = (layer.width_out, layer.width_in)
            shapes[f"linear.{place}.bias"] = (layer.width_out,)
        elif layer.kind == "norm":
            shapes[f"linear.{place}.weight"] = (layer.width_out,)
            shapes[f"linear.{place}.bias"] = (layer.width_out,)
        elif layer.kind == "activation" and structure.activation == "prelu":
            shapes[f"linear.{place}.weight"] = (1,)
    return shapes
