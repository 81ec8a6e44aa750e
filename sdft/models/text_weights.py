"""Weights of words: contexts of a caption such as `a (red:1.3) car`.

Shapes: B captions, K chunks of 77 tokens, S = 75 K + 2 tokens of the whole caption, D text width.
"""

from __future__ import annotations

import torch
from torch import Tensor

SMALLEST_MEAN = 1e-3
"""A mean below this share of the values' size is a rest of rounding and cannot be restored. That
of CLIP's published text encoders is about a tenth; that of random weights is 0."""


def weighted_contexts(contexts_BSD: Tensor, weights_BKS: Tensor) -> Tensor:
    """Return contexts whose tokens count by their weights, each caption's mean as before.

    Without the mean's correction a caption with many weights above 1 would push the network
    outside of what it has learnt to read. A caption without weights keeps its bits.

    Shapes: [B, S, D] and [B, K, 77] in, [B, S, D] out; the dtype stays, sums are in float32.
    Source: sd-scripts v0.9 in training, and its long-prompt pipeline in sampling; v0.10 leaves
    the mean as it comes out, in training only.
    """
    weights_BS1 = flat_weights(weights_BKS).to(contexts_BSD.device)[..., None]
    before_B11 = contexts_BSD.float().mean(dim=(1, 2), keepdim=True)
    size_B11 = contexts_BSD.float().abs().mean(dim=(1, 2), keepdim=True)
    weighted_BSD = contexts_BSD.float() * weights_BS1
    after_B11 = weighted_BSD.mean(dim=(1, 2), keepdim=True)
    has_mean_B11 = torch.minimum(before_B11.abs(), after_B11.abs()) > SMALLEST_MEAN * size_B11
    ones_B11 = torch.ones_like(after_B11)
    ratio_B11 = torch.where(
        has_mean_B11, before_B11 / torch.where(has_mean_B11, after_B11, ones_B11), ones_B11
    )
    corrected_BSD = (weighted_BSD * ratio_B11).to(contexts_BSD.dtype)
    has_weights_B11 = (weights_BS1 != 1.0).any(dim=1, keepdim=True)
    return torch.where(has_weights_B11, corrected_BSD, contexts_BSD)


def flat_weights(weights_BKS: Tensor) -> Tensor:
    """Return the weights in the order of a context's tokens: one start, all words, one end.

    Shapes: [B, K, 77] in, [B, 75 K + 2] out.
    """
    inner_BS = weights_BKS[:, :, 1:-1].flatten(1, 2)
    return torch.cat([weights_BKS[:, 0, :1], inner_BS, weights_BKS[:, -1, -1:]], dim=1)
