"""The kinds of Stable Diffusion that `sdft` trains. One row a kind; needs no torch.

A family says what the shapes of a file cannot: how its captions are padded, how its attention
heads are counted, and what its U-Net predicts unless the file says otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass

EPSILON = "epsilon"
V_PREDICTION = "v_prediction"


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    name: str
    title: str
    """The name that people know it by."""
    context_width: int
    """Width of the text encoder's output in the published models."""
    resolution_px: int
    """Side of the square pictures that the published model was trained on."""
    tokenizer_padding: str
    """What fills a caption's tokens up to 77: `eos`, or `zero` for token 0."""
    clip_skip_allowed: bool
    """SD 2.x takes the penultimate layer already, so there is nothing more to skip."""
    unet_heads: int | None
    """Attention heads of every U-Net level; none where it is channels / 64."""
    prediction_type: str
    modelspec_architecture: str
    """The name in `modelspec.architecture`."""


SD1 = Family(
    name="sd1",
    title="Stable Diffusion 1.x",
    context_width=768,
    resolution_px=512,
    tokenizer_padding="eos",
    clip_skip_allowed=True,
    unet_heads=8,
    prediction_type=EPSILON,
    modelspec_architecture="stable-diffusion-v1",
)
SD2_BASE = Family(
    name="sd2-base",
    title="Stable Diffusion 2.x base",
    context_width=1024,
    resolution_px=512,
    tokenizer_padding="zero",
    clip_skip_allowed=False,
    unet_heads=None,
    prediction_type=EPSILON,
    modelspec_architecture="stable-diffusion-v2-512",
)
SD2_V = Family(
    name="sd2-v",
    title="Stable Diffusion 2.x 768-v",
    context_width=1024,
    resolution_px=768,
    tokenizer_padding="zero",
    clip_skip_allowed=False,
    unet_heads=None,
    prediction_type=V_PREDICTION,
    modelspec_architecture="stable-diffusion-v2-768-v",
)

FAMILIES: dict[str, Family] = {family.name: family for family in (SD1, SD2_BASE, SD2_V)}
