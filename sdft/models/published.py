"""The sizes of the published Stable Diffusion models. Needs no torch.

Source: the config.json files of the published diffusers folders.
"""

from __future__ import annotations

from dataclasses import dataclass

from sdft.models.family import FAMILIES, SD1_GENERATION
from sdft.models.sizes import TextSizes, UNetSizes, VaeSizes


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSizes:
    """The three networks of a model."""

    unet: UNetSizes
    vae: VaeSizes
    text_encoder: TextSizes


def published_sizes(family: str) -> ModelSizes:
    """Return the sizes of `sd1` (1.5), `sd2-base` (2.1-base) or `sd2-v` (2.1)."""
    context_width = FAMILIES[family].context_width
    is_sd1 = family == SD1_GENERATION
    return ModelSizes(
        unet=UNetSizes(
            widths=(320, 640, 1280, 1280),
            layers_per_block=2,
            has_attention=(True, True, True, False),
            context_width=context_width,
            linear_projection=not is_sd1,
            in_channels=4,
            out_channels=4,
        ),
        vae=VaeSizes(widths=(128, 256, 512, 512), layers_per_block=2, latent_channels=4),
        text_encoder=TextSizes(
            width=context_width,
            mlp_width=3072 if is_sd1 else 4096,
            num_layers=12 if is_sd1 else 23,
            vocabulary_size=49408,
            positions=77,
        ),
    )
