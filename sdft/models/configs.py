"""The `config.json` texts of a diffusers folder, from the sizes of a model. Needs no torch.

Numbers that no size decides are those of the published Stable Diffusion 1.x and 2.x models.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sdft.formats.clip_tokens import BOS_ID, EOS_ID

Config = dict[str, Any]

WRITTEN_BY = "0.19.0"
"""`_diffusers_version` in what we write: the oldest version line that reads all of it."""


def unet_config(
    *,
    widths: Sequence[int],
    layers_per_block: int,
    has_attention: Sequence[bool],
    context_width: int,
    heads: Sequence[int],
    linear_projection: bool,
    upcast_attention: bool,
    sample_size: int,
    in_channels: int = 4,
    out_channels: int = 4,
) -> Config:
    """`has_attention`, `heads` and `widths` go from the highest resolution down."""
    down = ["CrossAttnDownBlock2D" if has else "DownBlock2D" for has in has_attention]
    up = ["CrossAttnUpBlock2D" if has else "UpBlock2D" for has in reversed(has_attention)]
    same_heads = len(set(heads)) == 1
    return {
        "_class_name": "UNet2DConditionModel",
        "_diffusers_version": WRITTEN_BY,
        "act_fn": "silu",
        # diffusers calls the number of heads attention_head_dim in these models, and means it.
        "attention_head_dim": heads[0] if same_heads else list(heads),
        "block_out_channels": list(widths),
        "center_input_sample": False,
        "cross_attention_dim": context_width,
        "down_block_types": down,
        "downsample_padding": 1,
        "flip_sin_to_cos": True,
        "freq_shift": 0,
        "in_channels": in_channels,
        "layers_per_block": layers_per_block,
        "mid_block_scale_factor": 1,
        "norm_eps": 1e-5,
        "norm_num_groups": 32,
        "out_channels": out_channels,
        "sample_size": sample_size,
        "up_block_types": up,
        "upcast_attention": upcast_attention,
        "use_linear_projection": linear_projection,
    }


def vae_config(
    *,
    widths: Sequence[int],
    layers_per_block: int,
    latent_channels: int,
    sample_size: int = 512,
) -> Config:
    return {
        "_class_name": "AutoencoderKL",
        "_diffusers_version": WRITTEN_BY,
        "act_fn": "silu",
        "block_out_channels": list(widths),
        "down_block_types": ["DownEncoderBlock2D"] * len(widths),
        "in_channels": 3,
        "latent_channels": latent_channels,
        "layers_per_block": layers_per_block,
        "norm_num_groups": 32,
        "out_channels": 3,
        "sample_size": sample_size,
        "scaling_factor": 0.18215,
        "up_block_types": ["UpDecoderBlock2D"] * len(widths),
    }


def text_config(
    *,
    width: int,
    mlp_width: int,
    num_layers: int,
    heads: int,
    vocabulary_size: int,
    positions: int,
    activation: str,
) -> Config:
    """`activation` is `quick_gelu` for OpenAI's CLIP (SD 1.x) and `gelu` for OpenCLIP (SD 2.x)."""
    return {
        "architectures": ["CLIPTextModel"],
        "attention_dropout": 0.0,
        "bos_token_id": BOS_ID,
        "dropout": 0.0,
        "eos_token_id": EOS_ID,
        "hidden_act": activation,
        "hidden_size": width,
        "initializer_factor": 1.0,
        "initializer_range": 0.02,
        "intermediate_size": mlp_width,
        "layer_norm_eps": 1e-5,
        "max_position_embeddings": positions,
        "model_type": "clip_text_model",
        "num_attention_heads": heads,
        "num_hidden_layers": num_layers,
        "pad_token_id": 1,
        "projection_dim": width,
        "vocab_size": vocabulary_size,
    }


def scheduler_config(prediction_type: str) -> Config:
    """Source of the numbers: the training schedule of CompVis' v1-inference.yaml."""
    return {
        "_class_name": "DDIMScheduler",
        "_diffusers_version": WRITTEN_BY,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "beta_start": 0.00085,
        "clip_sample": False,
        "num_train_timesteps": 1000,
        "prediction_type": prediction_type,
        "set_alpha_to_one": False,
        "steps_offset": 1,
        "trained_betas": None,
    }


def model_index_config() -> Config:
    return {
        "_class_name": "StableDiffusionPipeline",
        "_diffusers_version": WRITTEN_BY,
        "feature_extractor": [None, None],
        "requires_safety_checker": False,
        "safety_checker": [None, None],
        "scheduler": ["diffusers", "DDIMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
