"""Models with random weights, made on the device itself, and batches for them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from transformers.models.clip.configuration_clip import CLIPTextConfig
from transformers.models.clip.modeling_clip import CLIPTextModel

from sdft.formats.clip_tokens import ClipTokenizer
from sdft.models.bundle import ModelBundle
from sdft.models.family import FAMILIES
from sdft.models.published import published_sizes
from sdft.models.sizes import TextSizes, UNetSizes
from sdft.models.source import PARTS, config_from_sizes
from sdft.models.vae import LATENT_CHANNELS, PIXELS_PER_CELL
from sdft.train.batch import Batch

_TOY_UNET = {"widths": (32, 64, 64, 64)}
_TOY_TEXT = {"mlp_width": 128, "num_layers": 2}


def random_model(
    family: str,
    *,
    device: torch.device,
    seed: int = 0,
    parts: Sequence[str] = PARTS,
    toy: bool = False,
) -> ModelBundle:
    """Return a model of the published sizes with random weights in float32.

    A `toy` has the same topology with narrow blocks.
    """
    sizes: dict[str, Any] = {part: getattr(published_sizes(family), part) for part in parts}
    if toy:
        sizes = {part: _small(part, size) for part, size in sizes.items()}
    configs = {part: config_from_sizes(part, sizes[part], FAMILIES[family]) for part in parts}
    makers: dict[str, Any] = {
        "unet": UNet2DConditionModel.from_config,
        "vae": AutoencoderKL.from_config,
        "text_encoder": lambda config: CLIPTextModel(CLIPTextConfig(**config)),
    }
    networks = {}
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), device:
        torch.manual_seed(seed)
        for part in parts:
            networks[part] = makers[part](configs[part]).eval().requires_grad_(False)
    return ModelBundle(
        family=FAMILIES[family],
        prediction_type=FAMILIES[family].prediction_type,
        networks=networks,
        configs=configs,
        tokenizer=ClipTokenizer(FAMILIES[family].tokenizer_padding),
        form="safetensors",
        path=Path(f"random {family}"),
    )


def fixed_batch(
    bundle: ModelBundle,
    *,
    batch_size: int,
    side_px: int,
    seed: int,
    with_contexts: bool = True,
    num_pictures: int | None = None,
) -> Batch:
    """Return a batch on the CPU that follows from the seed.

    Latents are smooth, so that there is something to learn; of `num_pictures` different ones where
    that is given. Contexts stand for those of captions.
    """
    draws = torch.Generator().manual_seed(seed)
    cells = side_px // PIXELS_PER_CELL
    chosen = torch.arange(batch_size)
    if num_pictures is not None:
        chosen = torch.randint(0, num_pictures, (batch_size,), generator=draws)
    width = bundle.unet.config.cross_attention_dim
    noise_BCHW = torch.randn(batch_size, LATENT_CHANNELS, cells, cells, generator=draws)
    return Batch(
        latents_BCHW=torch.stack([_smooth_latent(int(one), cells) for one in chosen]),
        noise_BCHW=noise_BCHW,
        input_noise_BCHW=noise_BCHW,
        timesteps_B=torch.randint(0, 1000, (batch_size,), generator=draws),
        ids_BKS=torch.tensor([bundle.tokenizer.chunks("a cat", 75)] * batch_size),
        weights_B=torch.full((batch_size,), 1 / batch_size),
        contexts_BSD=(
            torch.stack([_context(int(one), width) for one in chosen]) if with_contexts else None
        ),
    )


def _smooth_latent(number: int, cells: int) -> torch.Tensor:
    draws = torch.Generator().manual_seed(number)
    coarse = torch.randn(1, LATENT_CHANNELS, 4, 4, generator=draws)
    return torch.nn.functional.interpolate(coarse, size=cells, mode="bilinear")[0]


def _context(number: int, width: int) -> torch.Tensor:
    return torch.randn(77, width, generator=torch.Generator().manual_seed(number))


def _small(part: str, size: Any) -> Any:
    if part == "unet":
        return UNetSizes(**{name: getattr(size, name) for name in size.__slots__} | _TOY_UNET)
    if part == "text_encoder":
        return TextSizes(**{name: getattr(size, name) for name in size.__slots__} | _TOY_TEXT)
    return type(size)(widths=(32, 32, 64, 64), layers_per_block=1, latent_channels=4)
