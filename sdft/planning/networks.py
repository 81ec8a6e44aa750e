"""The U-Net and the text encoder of Stable Diffusion, in operations without numbers.

Written after the order of operations of diffusers' UNet2DConditionModel and transformers' CLIP,
whose sizes come from the file's own shapes.

B batch, C channels, H and W latent height and width, S tokens, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod

from sdft.models.sizes import TextSizes, UNetSizes
from sdft.planning.ledger import TEMPORARIES
from sdft.planning.shadow import FLOAT32, Tape, Tensor, Weight

Weights = Mapping[str, Weight]


@dataclass(frozen=True, kw_only=True)
class UNetShadow:
    """A U-Net that can be run on a tape."""

    tape: Tape
    weights: Weights
    sizes: UNetSizes
    heads_of: Callable[[int], int]
    checkpoints: frozenset[str] = frozenset()
    """Names of the blocks whose parts are computed twice."""
    channels_last: bool = False

    def __call__(self, latents_BCHW: Tensor, contexts_BSD: Tensor) -> Tensor:
        tape, sizes = self.tape, self.sizes
        base = sizes.widths[0]
        batch = latents_BCHW.shape[0]
        time = tape.new((batch, base), latents_BCHW.itemsize)
        time = self._linear("time_embedding.linear_1", time)
        time = self._linear("time_embedding.linear_2", tape.pointwise(time))
        hidden = self._conv("conv_in", latents_BCHW)
        skips = [hidden]
        for level in range(len(sizes.widths)):
            hidden = self._down(level, hidden, time, contexts_BSD, skips)
        hidden = self._middle(hidden, time, contexts_BSD)
        for number in range(len(sizes.widths)):
            hidden = self._up(number, hidden, time, contexts_BSD, skips)
        hidden = tape.pointwise(self._norm("conv_norm_out", hidden))
        return self._conv("conv_out", hidden)

    def _down(
        self, level: int, hidden: Tensor, time: Tensor, contexts: Tensor, skips: list[Tensor]
    ) -> Tensor:
        block = f"down_blocks.{level}"
        for layer in range(self.sizes.layers_per_block):
            hidden = self._resnet(block, f"resnets.{layer}", hidden, time)
            if self.sizes.has_attention[level]:
                hidden = self._transformer(block, f"attentions.{layer}", hidden, contexts)
            skips.append(hidden)
        if level < len(self.sizes.widths) - 1:
            hidden = self._conv(f"{block}.downsamplers.0.conv", hidden, stride=2)
            skips.append(hidden)
        return hidden

    def _middle(self, hidden: Tensor, time: Tensor, contexts: Tensor) -> Tensor:
        hidden = self._resnet("mid_block", "resnets.0", hidden, time)
        hidden = self._transformer("mid_block", "attentions.0", hidden, contexts)
        return self._resnet("mid_block", "resnets.1", hidden, time)

    def _up(
        self, number: int, hidden: Tensor, time: Tensor, contexts: Tensor, skips: list[Tensor]
    ) -> Tensor:
        block = f"up_blocks.{number}"
        for layer in range(self.sizes.layers_per_block + 1):
            hidden = self.tape.join(hidden, skips.pop())
            hidden = self._resnet(block, f"resnets.{layer}", hidden, time)
            if self.sizes.has_attention[-1 - number]:
                hidden = self._transformer(block, f"attentions.{layer}", hidden, contexts)
        if number < len(self.sizes.widths) - 1:
            batch, channels, height, width = hidden.shape
            # The sizes below may have been rounded up.
            *_, height, width = skips[-1].shape
            hidden = self.tape.copy(hidden, (batch, channels, height, width))
            hidden = self._conv(f"{block}.upsamplers.0.conv", hidden)
        return hidden

    def _resnet(self, block: str, name: str, hidden: Tensor, time: Tensor) -> Tensor:
        path = f"{block}.{name}"

        def run(hidden: Tensor, time: Tensor) -> Tensor:
            tape = self.tape
            inner = tape.pointwise(self._norm(f"{path}.norm1", hidden))
            inner = self._conv(f"{path}.conv1", inner)
            inner = tape.add(inner, self._linear(f"{path}.time_emb_proj", tape.pointwise(time)))
            inner = tape.pointwise(self._norm(f"{path}.norm2", inner))
            inner = self._conv(f"{path}.conv2", inner)
            if f"{path}.conv_shortcut.weight" in self.weights:
                hidden = self._conv(f"{path}.conv_shortcut", hidden)
            return tape.pointwise(tape.add(hidden, inner), keeps=False)

        return self._twice(block, run, hidden, time)

    def _transformer(self, block: str, name: str, hidden: Tensor, contexts: Tensor) -> Tensor:
        tape, path = self.tape, f"{block}.{name}"
        batch, channels, height, width = picture = hidden.shape
        tokens = (batch, height * width, channels)
        inner = self._norm(f"{path}.norm", hidden)
        if self.sizes.linear_projection:
            # Channels come last, so a linear layer copies what does not lie so.
            inner = tape.view(inner, tokens)
            inner = inner if self.channels_last else tape.copy(inner, tokens)
            inner = self._linear(f"{path}.proj_in", inner)
        else:
            inner = tape.view(self._conv(f"{path}.proj_in", inner), tokens)
        inner = self._twice(
            block,
            lambda inner, contexts: self._attentions(
                f"{path}.transformer_blocks.0", inner, contexts
            ),
            inner,
            contexts,
        )
        if self.sizes.linear_projection:
            inner = tape.copy(self._linear(f"{path}.proj_out", inner), picture)
        else:
            inner = self._conv(f"{path}.proj_out", tape.copy(inner, picture))
        return tape.add(inner, hidden)

    def _attentions(self, path: str, hidden: Tensor, contexts: Tensor) -> Tensor:
        tape = self.tape
        copies = not (self.sizes.linear_projection or self.channels_last)
        normed = self._norm(f"{path}.norm1", hidden, copies=copies)
        hidden = tape.add(self._attention(f"{path}.attn1", normed, normed), hidden)
        normed = self._norm(f"{path}.norm2", hidden)
        hidden = tape.add(self._attention(f"{path}.attn2", normed, contexts), hidden)
        del normed
        inner = self._linear(f"{path}.ff.net.0.proj", self._norm(f"{path}.norm3", hidden))
        inner = self._linear(f"{path}.ff.net.2", tape.gated(inner))
        return tape.add(inner, hidden)

    def _attention(self, path: str, hidden: Tensor, contexts: Tensor) -> Tensor:
        query = self._linear(f"{path}.to_q", hidden)
        key = self._linear(f"{path}.to_k", contexts)
        value = self._linear(f"{path}.to_v", contexts)
        mixed = self.tape.attention(query, key, value, heads=self.heads_of(query.shape[-1]))
        return self.tape.pointwise(self._linear(f"{path}.to_out.0", mixed), keeps=False)

    # -- layers by name ---------------------------------------------------------------------

    def _twice(self, block: str, run: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
        if block in self.checkpoints:
            return self.tape.checkpoint(run, *inputs)
        return run(*inputs)

    def _norm(self, path: str, value: Tensor, *, copies: bool = False) -> Tensor:
        return self.tape.norm(value, layer_weights(self.weights, path), copies=copies)

    def _linear(self, path: str, value: Tensor) -> Tensor:
        weights = layer_weights(self.weights, path)
        return self.tape.product(value, weights, (*value.shape[:-1], weights[0].shape[0]))

    def _conv(self, path: str, value: Tensor, *, stride: int = 1) -> Tensor:
        weights = layer_weights(self.weights, path)
        batch, _, height, width = value.shape
        sides = (-(-height // stride), -(-width // stride))
        return self.tape.product(value, weights, (batch, weights[0].shape[0], *sides))


def layer_weights(weights: Weights, path: str) -> list[Weight]:
    """Return a layer's weight and, if it has one, its bias."""
    names = (f"{path}.weight", f"{path}.bias")
    return [weights[name] for name in names if name in weights]


def run_text_encoder(
    tape: Tape,
    weights: Weights,
    sizes: TextSizes,
    *,
    batch: int,
    tokens: int,
    heads: int,
    checkpoints: bool,
) -> Tensor:
    """Return the contexts [B, S, D] of a CLIP text encoder."""

    def layer(number: int) -> Callable[[Tensor], Tensor]:
        path = f"text_model.encoder.layers.{number}"

        def linear(name: str, value: Tensor) -> Tensor:
            chosen = layer_weights(weights, f"{path}.{name}")
            return tape.product(value, chosen, (*value.shape[:-1], chosen[0].shape[0]))

        def run(hidden: Tensor) -> Tensor:
            normed = tape.norm(hidden, layer_weights(weights, f"{path}.layer_norm1"))
            query, key, value = (
                linear(f"self_attn.{name}", normed) for name in ("q_proj", "k_proj", "v_proj")
            )
            mixed = tape.attention(query, key, value, heads=heads)
            hidden = tape.add(hidden, linear("self_attn.out_proj", mixed))
            del normed, query, key, value, mixed
            normed = tape.norm(hidden, layer_weights(weights, f"{path}.layer_norm2"))
            # QuickGELU is a sigmoid and two products, GELU one function; the larger is counted.
            inner = linear("mlp.fc1", normed)
            inner = tape.pointwise(tape.pointwise(inner))
            return tape.add(hidden, linear("mlp.fc2", inner))

        return run

    hidden = tape.new((batch, tokens, sizes.width), FLOAT32)
    tokens_weight = weights["text_model.embeddings.token_embedding.weight"]

    def into_embedding(gradient: Tensor) -> tuple[None]:
        tape.ledger.touch(TEMPORARIES, prod(tokens_weight.shape) * tokens_weight.itemsize)
        tape.give_gradient(tokens_weight, tokens_weight.itemsize)
        return (None,)

    hidden = tape.made(hidden, [None], into_embedding)
    for number in range(sizes.num_layers):
        run = layer(number)
        hidden = tape.checkpoint(run, hidden) if checkpoints else run(hidden)
    return tape.norm(hidden, layer_weights(weights, "text_model.final_layer_norm"))
