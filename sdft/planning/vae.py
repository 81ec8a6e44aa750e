"""The VAE, in operations without numbers. Nothing of it is trained.

Written after the order of operations of diffusers' AutoencoderKL. B batch, H and W image height
and width in pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

from sdft.models.sizes import VaeSizes
from sdft.planning.networks import layer_weights
from sdft.planning.shadow import Shape, Tape, Tensor, Weight


def encode_images(tape: Tape, sizes: VaeSizes, images: Shape, itemsize: int) -> None:
    """Encode images [B, 3, H, W]."""
    _in_full_precision(tape, lambda: _Coder(tape, sizes, "encoder", itemsize).encode(images))


def decode_latents(tape: Tape, sizes: VaeSizes, latents: Shape, itemsize: int) -> None:
    """Decode latents [B, C, H / 8, W / 8]."""
    _in_full_precision(tape, lambda: _Coder(tape, sizes, "decoder", itemsize).decode(latents))


def _in_full_precision(tape: Tape, run: Callable[[], None]) -> None:
    """Run without autocast, and without remembering anything for a backward pass."""
    records, half, tape.records, tape.half = tape.records, tape.half, False, False
    run()
    tape.records, tape.half = records, half


@dataclass
class _Coder:
    tape: Tape
    sizes: VaeSizes
    half: str
    """`encoder` or `decoder`."""
    itemsize: int

    def encode(self, images: Shape) -> None:
        sizes, levels = self.sizes, len(self.sizes.widths)
        hidden = self._conv("conv_in", self.tape.new(images, self.itemsize))
        for level in range(levels):
            for layer in range(sizes.layers_per_block):
                hidden = self._resnet(f"down_blocks.{level}.resnets.{layer}", hidden)
            if level < levels - 1:
                hidden = self._conv(f"down_blocks.{level}.downsamplers.0.conv", hidden, stride=2)
        self._end(self._middle(hidden))

    def decode(self, latents: Shape) -> None:
        sizes, levels = self.sizes, len(self.sizes.widths)
        hidden = self._middle(self._conv("conv_in", self.tape.new(latents, self.itemsize)))
        for number in range(levels):
            for layer in range(sizes.layers_per_block + 1):
                hidden = self._resnet(f"up_blocks.{number}.resnets.{layer}", hidden)
            if number < levels - 1:
                batch, channels, height, width = hidden.shape
                hidden = self.tape.copy(hidden, (batch, channels, 2 * height, 2 * width))
                hidden = self._conv(f"up_blocks.{number}.upsamplers.0.conv", hidden)
        self._end(hidden)

    def _middle(self, hidden: Tensor) -> Tensor:
        hidden = self._resnet("mid_block.resnets.0", hidden)
        return self._resnet("mid_block.resnets.1", self._attention(hidden))

    def _end(self, hidden: Tensor) -> None:
        self._conv("conv_out", self.tape.pointwise(self._norm("conv_norm_out", hidden)))

    def _resnet(self, path: str, hidden: Tensor) -> Tensor:
        tape = self.tape
        inner = self._conv(f"{path}.conv1", tape.pointwise(self._norm(f"{path}.norm1", hidden)))
        inner = self._conv(f"{path}.conv2", tape.pointwise(self._norm(f"{path}.norm2", inner)))
        if self._layer(f"{path}.conv_shortcut"):
            hidden = self._conv(f"{path}.conv_shortcut", hidden)
        return tape.pointwise(tape.add(hidden, inner), keeps=False)

    def _attention(self, hidden: Tensor) -> Tensor:
        tape, path = self.tape, "mid_block.attentions.0"
        batch, channels, height, width = hidden.shape
        tokens = (batch, height * width, channels)
        normed = tape.copy(self._norm(f"{path}.group_norm", hidden), tokens)
        query, key, value = (
            tape.product(normed, self._layer(f"{path}.{name}"), tokens)
            for name in ("to_q", "to_k", "to_v")
        )
        mixed = tape.attention(query, key, value, heads=1)
        return tape.add(tape.copy(mixed, hidden.shape), hidden)

    def _layer(self, path: str) -> list[Weight]:
        return layer_weights(self._weights, f"{self.half}.{path}")

    @cached_property
    def _weights(self) -> Mapping[str, Weight]:
        shapes = self.sizes.tensors()
        return {name: Weight(shape, self.itemsize, False) for name, shape in shapes.items()}

    def _norm(self, path: str, value: Tensor) -> Tensor:
        return self.tape.norm(value, self._layer(path))

    def _conv(self, path: str, value: Tensor, stride: int = 1) -> Tensor:
        chosen = self._layer(path)
        batch, _, height, width = value.shape
        shape = (batch, chosen[0].shape[0], height // stride, width // stride)
        return self.tape.product(value, chosen, shape)
