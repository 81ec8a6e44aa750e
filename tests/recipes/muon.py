"""The optimizer of the tiny model's recipe, and weights to begin with that let it learn at once.

M matrices of one shape, R rows, K columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from diffusers.models.attention_processor import Attention
from diffusers.models.downsampling import Downsample2D
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from diffusers.models.upsampling import Upsample2D
from torch import Tensor

MOMENTUM = 0.95
DECAY = 0.01
AS_ADAM = 0.2
"""An orthogonal matrix times this and the root of its longer side moves weights as far as Adam.

Source: Liu et al., "Muon is Scalable for LLM Training", 2025, section 2.2."""
ROUNDS = 3
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
SMALLEST_SIDE = 16
EMBEDDING_STD = 0.6
"""As long as those of words that the tiny model has learnt; CLIP begins with 0.02."""
MAX_ROWS = 10_000
"""A table of embeddings is no matrix that anything is multiplied by."""


class Muon(torch.optim.Optimizer):
    """Muon for the matrices and convolutions, AdamW for everything else.

    The momentum of each matrix is made nearly orthogonal by Newton and Schulz's iteration before
    it is applied, so that no direction waits for another. torch.optim.Muon takes matrices only, one
    after another; this one takes convolutions too, and all of one shape together. It reads nothing
    from the device, so a CUDA graph can hold it.

    Source: Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024.
    """

    def __init__(self, weights: Sequence[torch.nn.Parameter], rate: Tensor) -> None:
        super().__init__(list(weights), {"lr": rate})
        others: list[torch.nn.Parameter] = []
        self._alike: dict[tuple[int, int], list[torch.nn.Parameter]] = {}
        for weight in weights:
            rows = len(weight)
            columns = weight.numel() // rows
            if SMALLEST_SIDE <= rows < MAX_ROWS and columns >= SMALLEST_SIDE:
                self._alike.setdefault((rows, columns), []).append(weight)
            else:
                others.append(weight)
        self._momenta = {
            shape: weights[0].new_zeros(len(matrices), *shape)
            for shape, matrices in self._alike.items()
        }
        on_gpu = weights[0].device.type == "cuda"
        self._adam = torch.optim.AdamW(
            others, lr=rate, betas=(0.9, 0.99), weight_decay=1e-4, fused=True, capturable=on_gpu
        )

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        rate = self.param_groups[0]["lr"]
        for shape, weights in self._alike.items():
            gradient_MRK = torch.stack([weight.grad.view(shape) for weight in weights])  # type: ignore[union-attr]
            momentum_MRK = self._momenta[shape].lerp_(gradient_MRK, 1 - MOMENTUM)
            ahead_MRK = gradient_MRK.lerp(momentum_MRK, MOMENTUM)
            change_MRK = orthogonal(ahead_MRK) * (-AS_ADAM * max(shape) ** 0.5 * rate)
            torch._foreach_mul_(weights, 1 - rate * DECAY)
            changes = [one.view_as(w) for one, w in zip(change_MRK, weights, strict=True)]
            torch._foreach_add_(weights, changes)
        self._adam.step()

    def state_dict(self) -> dict[str, Any]:
        return {"momenta": list(self._momenta.values()), "adam": self._adam.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over a state; the rate stays the tensor that the steps read."""
        for mine, saved in zip(self._momenta.values(), state_dict["momenta"], strict=True):
            mine.copy_(saved)
        self._adam.load_state_dict(state_dict["adam"])
        for group in self._adam.param_groups:
            group["lr"] = self.param_groups[0]["lr"]


def orthogonal(matrix_MRK: Tensor) -> Tensor:
    """Return the nearest matrices, about, whose singular values are all 1."""
    is_tall = matrix_MRK.shape[1] > matrix_MRK.shape[2]
    wide = matrix_MRK.mT if is_tall else matrix_MRK
    wide = wide / (wide.norm(dim=(1, 2), keepdim=True) + 1e-7)
    first, third, fifth = COEFFICIENTS
    for _ in range(ROUNDS):
        square = wide @ wide.mT
        wide = first * wide + (third * square + fifth * (square @ square)) @ wide
    return (wide.mT if is_tall else wide).contiguous()


@torch.no_grad()
def begin_apart(text_encoder: Any) -> None:
    """Let words differ from the first step on, those that no caption has as much as the others.

    With CLIP's own short embeddings positions drown them, and colours take many times the steps.
    """
    text_encoder.get_input_embeddings().weight.normal_(std=EMBEDDING_STD)


@torch.no_grad()
def begin_passing_through(network: torch.nn.Module) -> None:
    """Let the residual branches add nothing at first, and the layers between levels only resize.

    Then what goes in comes out, though coarsely, and colours and places need not be found first.
    """
    for part in network.modules():
        if isinstance(part, ResnetBlock2D):
            _silence(part.conv2)
        elif isinstance(part, Transformer2DModel):
            _silence(part.proj_out)
        elif isinstance(part, Attention) and part.residual_connection:
            _silence(part.to_out[0])
        elif isinstance(part, Downsample2D | Upsample2D):
            _silence(part.conv)
            weight_OI33 = part.conv.weight
            same = torch.arange(len(weight_OI33))
            if isinstance(part, Upsample2D):
                weight_OI33[same, same, 1, 1] = 1
            else:
                # Without padding of its own the picture is padded on the right and below.
                inner = slice(0, 2) if part.padding == 0 else slice(1, 3)
                weight_OI33[same, same, inner, inner] = 0.25


def _silence(layer: Any) -> None:
    layer.weight.zero_()
    layer.bias.zero_()
