"""Which settings stand on which step of the wizard, in their order."""

from __future__ import annotations

FIELDS_OF: dict[str, tuple[str, ...]] = {
    "model": ("pretrained_model_name_or_path", "vae", "v2", "v_parameterization", "clip_skip"),
    "images": ("image_dir", "metadata_file", "num_repeats", "recursive", "flip_aug", "is_reg"),
    "words": (
        "caption_extension",
        "shuffle_caption",
        "keep_tokens",
        "caption_dropout_rate",
        "caption_tag_dropout_rate",
        "caption_separator",
        "keep_tokens_separator",
        "caption_prefix",
        "caption_suffix",
        "enable_wildcard",
        "class_tokens",
        "max_token_length",
        "weighted_captions",
    ),
    "buckets": (
        "resolution",
        "batch_size",
        "enable_bucket",
        "min_bucket_reso",
        "max_bucket_reso",
        "bucket_reso_steps",
        "bucket_no_upscale",
        "random_crop",
        "resize_interpolation",
    ),
    "training": (
        "output_dir",
        "output_name",
        "max_train_epochs",
        "max_train_steps",
        "learning_rate",
        "lr_scheduler",
        "lr_warmup_steps",
        "optimizer_type",
        "gradient_accumulation_steps",
        "mixed_precision",
        "gradient_checkpointing",
        "cache_latents_to_disk",
        "train_text_encoder",
        "save_every_n_epochs",
        "save_precision",
        "sample_prompts",
        "sample_every_n_steps",
        "seed",
    ),
}


def step_of(name: str) -> str:
    """Return the step that has a setting."""
    return next((step for step, names in FIELDS_OF.items() if name in names), "training")
