"""Settings of the model, the run's length, precision, memory, the caches and this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator

from sdft.config.settings import setting
from sdft.errors import UserError
from sdft.units import parse_duration_s


def duration_s_of(value: object) -> object:
    """Read `7h30m` or a number of seconds as seconds.

    Raises: ValueError for text that is no duration, and for 0 or less.
    """
    if isinstance(value, str):
        try:
            value = parse_duration_s(value)
        except UserError as error:
            raise ValueError("not a duration") from error
    if isinstance(value, int | float) and not value > 0:
        raise ValueError("not above 0")
    return value


Duration = Annotated[float | None, BeforeValidator(duration_s_of)]


class BasicSettings(BaseModel, frozen=True, extra="forbid", allow_inf_nan=False, defer_build=True):
    """The part of the training settings that says what is trained, how long, and on what."""

    pretrained_model_name_or_path: Path | None = setting(
        None,
        help="Base model: a diffusers folder, or one .safetensors or .ckpt file.",
        group="model",
        common=True,
    )
    vae: Path | None = setting(
        None, help="Another VAE to use and save: a folder or a file.", group="model"
    )
    v2: bool | None = setting(
        None, help="The model is a Stable Diffusion 2.x; found out if not set.", group="model"
    )
    v_parameterization: bool | None = setting(
        None, help="The model predicts v (2.x at 768 px); found out if not set.", group="model"
    )
    clip_skip: int | None = setting(
        None,
        ge=1,
        le=12,
        help="Take the text encoder's n-th layer from the end; 1 is the last.",
        group="model",
        unit="layers",
        common=True,
    )
    max_token_length: Literal[75, 150, 225] = setting(
        75, help="How many tokens of a caption the model reads.", group="model", unit="tokens"
    )
    weighted_captions: bool = setting(
        False, help="Read (word:1.3) in captions as a weight.", group="model"
    )
    cut_at_commas: bool = setting(
        False,
        help="End the parts of a caption above 75 tokens at commas, not in the middle of a tag.",
        group="model",
    )
    train_text_encoder: bool = setting(
        False, help="Train the text encoder too.", group="training", common=True
    )
    max_train_steps: int = setting(
        1600,
        ge=1,
        help="Optimizer steps of the whole run.",
        group="training",
        unit="steps",
        common=True,
    )
    max_train_epochs: int | None = setting(
        None,
        ge=1,
        help="Passes over all images; if set, it replaces max_train_steps.",
        group="training",
        unit="epochs",
        common=True,
    )
    max_train_time: Duration = setting(
        None,
        help="Stop, resumable, after this time, such as 7h30m.",
        group="training",
        unit="s",
        decides=False,
        wanted="a duration such as 7h30m, 90s, or a number of seconds",
    )
    seed: int | None = setting(
        None,
        ge=0,
        le=2**63 - 1,
        help="Seed of all randomness; one is drawn and kept if not set.",
        group="training",
        common=True,
    )
    gradient_accumulation_steps: int = setting(
        1,
        ge=1,
        help="Batches that make one optimizer step together.",
        group="training",
        unit="batches",
        common=True,
    )
    partial_batches: Literal["keep", "carry", "drop"] = setting(
        "keep",
        help="Images that fill no whole step: a short step, a step of the next epoch, or left out.",
        group="training",
    )
    prior_loss_weight: float = setting(
        1.0,
        ge=0,
        help="How much images of regularisation (is_reg) count, beside 1 of the others.",
        group="training",
    )
    unreadable_image: Literal["stop", "skip"] = setting(
        "stop",
        help="An image that cannot be read during the run stops it, or counts as nothing.",
        group="training",
        decides=False,
    )
    max_rejected_share: float = setting(
        0.1,
        ge=0,
        le=1,
        help="Stop before training if more than this share of the images cannot be used.",
        group="training",
        decides=False,
    )

    mixed_precision: Literal["no", "fp16", "bf16"] = setting(
        "no", help="Arithmetic of the forward pass.", group="memory", common=True
    )
    full_fp16: bool = setting(
        False, help="Weights and gradients in fp16 too; needs mixed_precision fp16.", group="memory"
    )
    full_bf16: bool = setting(
        False, help="Weights and gradients in bf16 too; needs mixed_precision bf16.", group="memory"
    )
    stochastic_rounding: bool = setting(
        True, help="With full_bf16, round updates so that small ones are not lost.", group="memory"
    )
    no_half_vae: bool = setting(False, help="Keep the VAE in float32.", group="memory")
    gradient_checkpointing: bool = setting(
        False,
        help="Compute activations twice to save memory.",
        group="memory",
        common=True,
        decides=False,
    )
    sdpa: bool = setting(
        False, help="Use torch's own attention, the default.", group="memory", decides=False
    )
    xformers: bool = setting(
        False, help="Use the attention of xformers.", group="memory", common=True, decides=False
    )
    mem_eff_attn: bool = setting(
        False, help="Use attention that needs little memory.", group="memory", decides=False
    )
    diffusers_xformers: bool = setting(
        False, help="Older name of xformers.", group="memory", decides=False
    )

    cache_latents: bool = setting(
        True, help="Encode every image once, not in each step.", group="cache", common=True
    )
    cache_latents_to_disk: bool = setting(
        False, help="Keep the latents on disk for later runs.", group="cache", decides=False
    )
    cache_dir: Path | None = setting(
        None,
        help="Folder or URL of the cached latents; beside the dataset file if not set.",
        group="cache",
        decides=False,
    )
    object_cache_gb: float = setting(
        50.0,
        gt=0,
        unit="GB",
        help="How much of what is read of object stores is kept on this machine's disk.",
        group="cache",
        decides=False,
    )
    # float32 by default: a cached run then sees the very latents of an uncached one, at 64 KiB
    # for a 512 px image, which is little beside the image itself.
    cache_dtype: Literal["fp16", "fp32", "bf16"] = setting(
        "fp32", help="Precision of the cached latents.", group="cache"
    )
    cache_moments: bool = setting(
        False,
        help="Keep what the VAE says of each image and draw latents from it anew on each use, as"
        " without a cache.",
        group="cache",
    )
    latent_kind: Literal["sample", "mean"] = setting(
        "sample",
        help="Latents of an image: a draw from what the VAE says of it, or the mean of that.",
        group="cache",
    )
    text_cache_gb: float = setting(
        1.0,
        ge=0,
        help="Keep encoded captions on disk where all of them fit in this; 0 keeps none.",
        group="cache",
        unit="GB",
    )
    vae_batch_size: int = setting(
        1,
        ge=1,
        help="Images that the VAE encodes at once.",
        group="cache",
        unit="images",
        decides=False,
    )
    max_data_loader_n_workers: int = setting(
        8,
        ge=0,
        help="Processes that read images, never more than there are CPU cores.",
        group="machine",
        decides=False,
    )
    device: Literal["auto", "cpu", "cuda"] = setting(
        "auto",
        help="Where to compute; auto takes a GPU if there is one.",
        group="machine",
        common=True,
        decides=False,
    )
    deterministic: bool = setting(
        False,
        help="Use only algorithms that repeat to the same bits, which is slower on a GPU.",
        group="machine",
        decides=False,
    )
