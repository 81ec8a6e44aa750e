"""The sizes of the three networks, read from the shapes of their tensors. Needs no torch.

In: names (as diffusers and transformers of the 4.x era have them) with shapes. Out: the sizes,
and from sizes again every tensor that such a network has. So a file's own shapes decide what it
is, small models of the same topology load too, and what is missing can be named.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from sdft.errors import DataError

MAX_COUNT = 64
"""Of layers and levels; published models have at most 24."""
NORM_GROUPS = 32
"""The normalisation of U-Net and VAE takes channels in so many groups."""

Shape = tuple[int, ...]
Shapes = Mapping[str, Shape]


@dataclass(frozen=True, slots=True, kw_only=True)
class UNetSizes:
    widths: tuple[int, ...]
    """Channels of each level, the highest resolution first."""
    layers_per_block: int
    has_attention: tuple[bool, ...]
    context_width: int
    linear_projection: bool
    """Whether the layers around an attention block are linear (SD 2.x) or 1x1 convolutions."""
    in_channels: int
    out_channels: int

    @classmethod
    def of(cls, shapes: Shapes) -> UNetSizes:
        """Raises: DataError that names a tensor without which nothing can be said."""
        levels = range(_count(shapes, r"down_blocks\.(\d{1,4})\."))
        attention = [f"down_blocks.{i}.attentions.0" for i in levels]
        has_attention = tuple(f"{name}.norm.weight" in shapes for name in attention)
        first = next((name for name in attention if f"{name}.norm.weight" in shapes), attention[0])
        to_k = _shape(shapes, f"{first}.transformer_blocks.0.attn2.to_k.weight", 2)
        proj_in = shapes.get(f"{first}.proj_in.weight", ())
        conv_in = _shape(shapes, "conv_in.weight", 4)
        return cls(
            widths=tuple(
                _shape(shapes, f"down_blocks.{i}.resnets.0.conv1.weight", 4)[0] for i in levels
            ),
            layers_per_block=_count(shapes, r"down_blocks\.0\.resnets\.(\d{1,4})\."),
            has_attention=has_attention,
            context_width=to_k[1],
            linear_projection=len(proj_in) == 2,
            in_channels=conv_in[1],
            out_channels=_shape(shapes, "conv_out.weight", 4)[0],
        )

    def tensors(self) -> dict[str, Shape]:
        return dict(self._tensors())

    def _tensors(self) -> Iterator[tuple[str, Shape]]:
        base, time = self.widths[0], 4 * self.widths[0]
        yield from _with_bias("conv_in", (base, self.in_channels, 3, 3))
        yield from _with_bias("time_embedding.linear_1", (time, base))
        yield from _with_bias("time_embedding.linear_2", (time, time))
        for level, width in enumerate(self.widths):
            block = f"down_blocks.{level}"
            channels = self.widths[max(level - 1, 0)]
            for layer in range(self.layers_per_block):
                yield from _resnet(f"{block}.resnets.{layer}", channels, width, time)
                if self.has_attention[level]:
                    yield from self._attention(f"{block}.attentions.{layer}", width)
                channels = width
            if level < len(self.widths) - 1:
                yield from _with_bias(f"{block}.downsamplers.0.conv", (width, width, 3, 3))
        middle = self.widths[-1]
        yield from _resnet("mid_block.resnets.0", middle, middle, time)
        yield from self._attention("mid_block.attentions.0", middle)
        yield from _resnet("mid_block.resnets.1", middle, middle, time)
        yield from self._up(time)
        yield from _norm("conv_norm_out", base)
        yield from _with_bias("conv_out", (self.out_channels, base, 3, 3))

    def _up(self, time: int) -> Iterator[tuple[str, Shape]]:
        widths = self.widths[::-1]
        channels = widths[0]
        for number, width in enumerate(widths):
            block = f"up_blocks.{number}"
            below = widths[min(number + 1, len(widths) - 1)]
            for layer in range(self.layers_per_block + 1):
                # The last layer takes over what the next level's downsampling gave.
                skip = below if layer == self.layers_per_block else width
                yield from _resnet(f"{block}.resnets.{layer}", channels + skip, width, time)
                if self.has_attention[-1 - number]:
                    yield from self._attention(f"{block}.attentions.{layer}", width)
                channels = width
            if number < len(widths) - 1:
                yield from _with_bias(f"{block}.upsamplers.0.conv", (width, width, 3, 3))

    def _attention(self, name: str, width: int) -> Iterator[tuple[str, Shape]]:
        projection = (width, width) if self.linear_projection else (width, width, 1, 1)
        yield from _norm(f"{name}.norm", width)
        yield from _with_bias(f"{name}.proj_in", projection)
        block = f"{name}.transformer_blocks.0"
        for attention, context in (("attn1", width), ("attn2", self.context_width)):
            yield f"{block}.{attention}.to_q.weight", (width, width)
            yield f"{block}.{attention}.to_k.weight", (width, context)
            yield f"{block}.{attention}.to_v.weight", (width, context)
            yield from _with_bias(f"{block}.{attention}.to_out.0", (width, width))
        # The first layer makes values and gates at once, each four times as wide.
        yield from _with_bias(f"{block}.ff.net.0.proj", (8 * width, width))
        yield from _with_bias(f"{block}.ff.net.2", (width, 4 * width))
        for norm in ("norm1", "norm2", "norm3"):
            yield from _norm(f"{block}.{norm}", width)
        yield from _with_bias(f"{name}.proj_out", projection)


@dataclass(frozen=True, slots=True, kw_only=True)
class VaeSizes:
    widths: tuple[int, ...]
    layers_per_block: int
    latent_channels: int

    @classmethod
    def of(cls, shapes: Shapes) -> VaeSizes:
        """Raises: DataError that names a tensor without which nothing can be said."""
        levels = range(_count(shapes, r"encoder\.down_blocks\.(\d{1,4})\."))
        return cls(
            widths=tuple(
                _shape(shapes, f"encoder.down_blocks.{i}.resnets.0.conv1.weight", 4)[0]
                for i in levels
            ),
            layers_per_block=_count(shapes, r"encoder\.down_blocks\.0\.resnets\.(\d{1,4})\."),
            latent_channels=_shape(shapes, "decoder.conv_in.weight", 4)[1],
        )

    def tensors(self) -> dict[str, Shape]:
        return dict(self._tensors())

    def _tensors(self) -> Iterator[tuple[str, Shape]]:
        base, deepest, latent = self.widths[0], self.widths[-1], self.latent_channels
        yield from _with_bias("encoder.conv_in", (base, 3, 3, 3))
        for level, width in enumerate(self.widths):
            block = f"encoder.down_blocks.{level}"
            channels = self.widths[max(level - 1, 0)]
            for layer in range(self.layers_per_block):
                yield from _resnet(f"{block}.resnets.{layer}", channels, width, None)
                channels = width
            if level < len(self.widths) - 1:
                yield from _with_bias(f"{block}.downsamplers.0.conv", (width, width, 3, 3))
        yield from self._middle("encoder.mid_block")
        yield from _norm("encoder.conv_norm_out", deepest)
        yield from _with_bias("encoder.conv_out", (2 * latent, deepest, 3, 3))
        yield from _with_bias("quant_conv", (2 * latent, 2 * latent, 1, 1))
        yield from _with_bias("post_quant_conv", (latent, latent, 1, 1))
        yield from _with_bias("decoder.conv_in", (deepest, latent, 3, 3))
        yield from self._middle("decoder.mid_block")
        channels = deepest
        for number, width in enumerate(self.widths[::-1]):
            block = f"decoder.up_blocks.{number}"
            for layer in range(self.layers_per_block + 1):
                yield from _resnet(f"{block}.resnets.{layer}", channels, width, None)
                channels = width
            if number < len(self.widths) - 1:
                yield from _with_bias(f"{block}.upsamplers.0.conv", (width, width, 3, 3))
        yield from _norm("decoder.conv_norm_out", base)
        yield from _with_bias("decoder.conv_out", (3, base, 3, 3))

    def _middle(self, name: str) -> Iterator[tuple[str, Shape]]:
        width = self.widths[-1]
        yield from _resnet(f"{name}.resnets.0", width, width, None)
        yield from _norm(f"{name}.attentions.0.group_norm", width)
        for layer in ("to_q", "to_k", "to_v", "to_out.0"):
            yield from _with_bias(f"{name}.attentions.0.{layer}", (width, width))
        yield from _resnet(f"{name}.resnets.1", width, width, None)


@dataclass(frozen=True, slots=True, kw_only=True)
class TextSizes:
    width: int
    mlp_width: int
    num_layers: int
    vocabulary_size: int
    positions: int

    @classmethod
    def of(cls, shapes: Shapes) -> TextSizes:
        """Raises: DataError that names a tensor without which nothing can be said."""
        tokens = _shape(shapes, "text_model.embeddings.token_embedding.weight", 2)
        return cls(
            width=tokens[1],
            mlp_width=_shape(shapes, "text_model.encoder.layers.0.mlp.fc1.weight", 2)[0],
            num_layers=_count(shapes, r"text_model\.encoder\.layers\.(\d{1,4})\."),
            vocabulary_size=tokens[0],
            positions=_shape(shapes, "text_model.embeddings.position_embedding.weight", 2)[0],
        )

    def tensors(self) -> dict[str, Shape]:
        return dict(self._tensors())

    def _tensors(self) -> Iterator[tuple[str, Shape]]:
        width = self.width
        embeddings = "text_model.embeddings"
        yield f"{embeddings}.token_embedding.weight", (self.vocabulary_size, width)
        yield f"{embeddings}.position_embedding.weight", (self.positions, width)
        for number in range(self.num_layers):
            layer = f"text_model.encoder.layers.{number}"
            for projection in ("q_proj", "k_proj", "v_proj", "out_proj"):
                yield from _with_bias(f"{layer}.self_attn.{projection}", (width, width))
            yield from _norm(f"{layer}.layer_norm1", width)
            yield from _with_bias(f"{layer}.mlp.fc1", (self.mlp_width, width))
            yield from _with_bias(f"{layer}.mlp.fc2", (width, self.mlp_width))
            yield from _norm(f"{layer}.layer_norm2", width)
        yield from _norm("text_model.final_layer_norm", width)


def _with_bias(name: str, weight: Shape) -> Iterator[tuple[str, Shape]]:
    yield f"{name}.weight", weight
    yield f"{name}.bias", weight[:1]


def _norm(name: str, width: int) -> Iterator[tuple[str, Shape]]:
    yield from _with_bias(name, (width,))


def _resnet(name: str, channels: int, width: int, time: int | None) -> Iterator[tuple[str, Shape]]:
    yield from _norm(f"{name}.norm1", channels)
    yield from _with_bias(f"{name}.conv1", (width, channels, 3, 3))
    if time is not None:
        yield from _with_bias(f"{name}.time_emb_proj", (width, time))
    yield from _norm(f"{name}.norm2", width)
    yield from _with_bias(f"{name}.conv2", (width, width, 3, 3))
    if channels != width:
        yield from _with_bias(f"{name}.conv_shortcut", (width, channels, 1, 1))


def _count(names: Iterable[str], pattern: str) -> int:
    """Return the highest number that `pattern` finds, plus 1; at least 1."""
    matches = (re.match(pattern, name) for name in names)
    count = max((int(match[1]) for match in matches if match), default=0) + 1
    # A name can claim any number, and a list of so many layers would be made.
    if count > MAX_COUNT:
        raise DataError(what=f"a network with {count} layers or levels is none that sdft knows")
    return count


def _shape(shapes: Shapes, name: str, num_axes: int) -> Shape:
    shape = shapes.get(name)
    if shape is None:
        raise DataError(what=f'the tensor "{name}" is missing')
    if len(shape) != num_axes:
        raise DataError(what=f'the tensor "{name}" has the shape {list(shape)}')
    return shape
