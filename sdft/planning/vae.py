"""The VAE's encoder, in operations without numbers. Nothing of it is trained."""

from __future__ import annotations

from sdft.models.sizes import VaeSizes
from sdft.planning.networks import layer_weights
from sdft.planning.shadow import Shape, Tape, Tensor, Weight


def encode_images(tape: Tape, sizes: VaeSizes, images: Shape, itemsize: int) -> None:
    """Encode images [B, 3, H, W] in pixels; written after the order of diffusers' AutoencoderKL."""
    weights = {name: Weight(shape, itemsize, False) for name, shape in sizes.tensors().items()}
    records, half, tape.records, tape.half = tape.records, tape.half, False, False

    def conv(path: str, value: Tensor, stride: int = 1) -> Tensor:
        chosen = layer_weights(weights, f"encoder.{path}")
        batch, _, height, width = value.shape
        shape = (batch, chosen[0].shape[0], height // stride, width // stride)
        return tape.product(value, chosen, shape)

    def norm(path: str, value: Tensor) -> Tensor:
        return tape.norm(value, layer_weights(weights, f"encoder.{path}"))

    def resnet(path: str, hidden: Tensor) -> Tensor:
        inner = conv(f"{path}.conv1", tape.pointwise(norm(f"{path}.norm1", hidden)))
        inner = conv(f"{path}.conv2", tape.pointwise(norm(f"{path}.norm2", inner)))
        if f"encoder.{path}.conv_shortcut.weight" in weights:
            hidden = conv(f"{path}.conv_shortcut", hidden)
        return tape.pointwise(tape.add(hidden, inner), keeps=False)

    def attention(path: str, hidden: Tensor) -> Tensor:
        batch, channels, height, width = hidden.shape
        tokens = tape.copy(norm(f"{path}.group_norm", hidden), (batch, height * width, channels))
        query, key, value = (
            tape.product(tokens, layer_weights(weights, f"encoder.{path}.{name}"), tokens.shape)
            for name in ("to_q", "to_k", "to_v")
        )
        mixed = tape.attention(query, key, value, heads=1)
        return tape.add(tape.copy(mixed, hidden.shape), hidden)

    hidden = conv("conv_in", tape.new(images, itemsize))
    for level in range(len(sizes.widths)):
        for layer in range(sizes.layers_per_block):
            hidden = resnet(f"down_blocks.{level}.resnets.{layer}", hidden)
        if level < len(sizes.widths) - 1:
            hidden = conv(f"down_blocks.{level}.downsamplers.0.conv", hidden, stride=2)
    hidden = attention("mid_block.attentions.0", resnet("mid_block.resnets.0", hidden))
    conv("conv_out", tape.pointwise(norm("conv_norm_out", resnet("mid_block.resnets.1", hidden))))
    tape.records, tape.half = records, half
