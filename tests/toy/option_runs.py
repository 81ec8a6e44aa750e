"""The runs that take every supported option of sd-scripts' fine_tune.py, two steps each.

A row: the option, its words on the command line (none for a flag), the setting that it becomes and
the value that this has in the resolved config, read back from the run folder's config.toml.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

HELD = object()
"""The value in config.toml is a path; its last part is the last part of the words."""


@dataclass(frozen=True)
class Row:
    option: str
    words: tuple[str, ...]
    setting: str
    value: Any


def flag(option: str, setting: str | None = None, value: Any = True) -> Row:
    return Row(option, (), setting or option, value)


def text(option: str, words: str, value: Any = None, setting: str | None = None) -> Row:
    return Row(option, (words,), setting or option, words if value is None else value)


def path(option: str, words: str, setting: str | None = None) -> Row:
    return Row(option, (words,), setting or option, HELD)


BASE = (
    path("pretrained_model_name_or_path", "model.safetensors"),
    path("output_dir", "out"),
    text("seed", "7", 7),
)

METADATA = tuple(
    text(f"metadata_{name}", f"the {name}")
    for name in (
        "title",
        "author",
        "description",
        "license",
        "tags",
        "usage_hint",
        "merged_from",
        "trigger_phrase",
        "preprocessor",
        "is_negative_embedding",
    )
)

OLD_FORM = (
    *BASE,
    *METADATA,
    path("metadata_thumbnail", "thumbnail.png"),
    text("output_name", "old"),
    path("train_data_dir", "images", "subset.image_dir"),
    path("in_json", "meta.json", "subset.metadata_file"),
    text("dataset_repeats", "2", 2, "subset.num_repeats"),
    text("resolution", "128,192", [128, 192], "dataset.resolution"),
    text("train_batch_size", "2", 2, "dataset.batch_size"),
    flag("enable_bucket", "dataset.enable_bucket"),
    text("min_bucket_reso", "96", 96, "dataset.min_bucket_reso"),
    text("max_bucket_reso", "320", 320, "dataset.max_bucket_reso"),
    text("bucket_reso_steps", "32", 32, "dataset.bucket_reso_steps"),
    flag("bucket_no_upscale", "dataset.bucket_no_upscale"),
    text("resize_interpolation", "bicubic", setting="subset.resize_interpolation"),
    flag("cache_latents"),
    flag("cache_latents_to_disk"),
    text("vae_batch_size", "2", 2),
    flag("flip_aug", "subset.flip_aug"),
    flag("alpha_mask", "subset.alpha_mask"),
    flag("shuffle_caption", "subset.shuffle_caption"),
    text("caption_separator", ";", setting="subset.caption_separator"),
    text("keep_tokens", "1", 1, "subset.keep_tokens"),
    text("keep_tokens_separator", "|||", setting="subset.keep_tokens_separator"),
    text("secondary_separator", ";;;", setting="subset.secondary_separator"),
    flag("enable_wildcard", "subset.enable_wildcard"),
    text("caption_prefix", "a photo", setting="subset.caption_prefix"),
    text("caption_suffix", "in detail", setting="subset.caption_suffix"),
    text("caption_dropout_rate", "0.1", 0.1, "subset.caption_dropout_rate"),
    text("caption_dropout_every_n_epochs", "2", 2, "subset.caption_dropout_every_n_epochs"),
    text("caption_tag_dropout_rate", "0.2", 0.2, "subset.caption_tag_dropout_rate"),
    text("token_warmup_min", "2", 2, "subset.token_warmup_min"),
    text("token_warmup_step", "0.5", 0.5, "subset.token_warmup_step"),
    flag("weighted_captions"),
    text("max_token_length", "150", 150),
    text("clip_skip", "2", 2),
    text("max_data_loader_n_workers", "0", 0),
    text("ddp_timeout", "30", 30.0),
    flag("ddp_gradient_as_bucket_view"),
    flag("ddp_static_graph"),
    text("max_train_steps", "2", 2),
    flag("gradient_checkpointing"),
    text("mixed_precision", "bf16"),
    flag("full_bf16"),
    flag("xformers"),
    text("noise_offset", "0.1", 0.1),
    flag("noise_offset_random_strength"),
    text("adaptive_noise_scale", "0.01", 0.01),
    text("multires_noise_iterations", "2", 2),
    text("multires_noise_discount", "0.5", 0.5),
    text("ip_noise_gamma", "0.1", 0.1),
    flag("ip_noise_gamma_random_strength"),
    text("min_timestep", "10", 10),
    text("max_timestep", "900", 900),
    text("loss_type", "huber"),
    text("huber_schedule", "exponential"),
    text("huber_c", "0.2", 0.2),
    text("huber_scale", "2", 2.0),
    text("min_snr_gamma", "5", 5.0),
    text("v_pred_like_loss", "0.1", 0.1),
    flag("debiased_estimation_loss"),
    text("optimizer_type", "SGD", "torch.optim.SGD"),
    Row(
        "optimizer_args",
        ("momentum=0.9", "nesterov=True"),
        "optimizer_args",
        ["momentum=0.9", "nesterov=True"],
    ),
    text("learning_rate", "1e-4", 1e-4),
    text("max_grad_norm", "0.5", 0.5),
    text("lr_scheduler", "warmup_stable_decay"),
    text("lr_warmup_steps", "1", 1),
    text("lr_decay_steps", "50%", 0.5),
    text("lr_scheduler_min_lr_ratio", "0.1", 0.1),
    text("save_model_as", "diffusers_safetensors"),
    text("save_precision", "fp16"),
    text("save_every_n_steps", "1", 1),
    text("save_last_n_steps", "1", 1),
    text("save_last_n_steps_state", "1", 1),
    flag("save_state"),
    flag("save_state_on_train_end"),
    path("sample_prompts", "prompts.txt"),
    text("sample_every_n_steps", "2", 2),
    flag("sample_at_first"),
    text("sample_sampler", "euler"),
    path("logging_dir", "logs"),
    text("log_with", "tensorboard"),
    text("log_prefix", "mine_"),
    text("log_tracker_name", "cats"),
    path("log_tracker_config", "tracker.toml"),
    flag("log_config"),
    # The tests have no network: what is not sent is said, and the run goes on.
    text("huggingface_repo_id", "someone/cats"),
    text("huggingface_repo_type", "model"),
    text("huggingface_path_in_repo", "sd"),
    text("huggingface_repo_visibility", "public"),
    flag("save_state_to_huggingface"),
)

FILES = (
    *BASE,
    text("output_name", "files"),
    path("dataset_config", "dataset.toml", "dataset file"),
    path("config_file", "config.toml", "config file"),
    path("vae", "model/vae"),
    text("caption_extention", ".txt", setting="subset.caption_extension"),
    text("max_train_epochs", "1", 1),
    text("gradient_accumulation_steps", "2", 2),
    flag("train_text_encoder"),
    text("learning_rate_te", "1e-6", 1e-6),
    text("mixed_precision", "fp16"),
    flag("full_fp16"),
    flag("no_half_vae"),
    flag("mem_eff_attn"),
    flag("use_lion_optimizer", "optimizer_type", "Lion"),
    text("lr_scheduler", "polynomial"),
    text("lr_scheduler_power", "2", 2.0),
    text("save_model_as", "ckpt"),
    text("save_every_n_epochs", "1", 1),
    text("save_n_epoch_ratio", "1", 1),
    text("save_last_n_epochs", "1", 1),
    text("save_last_n_epochs_state", "1", 1),
    flag("save_state"),
    path("sample_prompts", "prompts.txt"),
    text("sample_every_n_epochs", "1", 1),
    text("wandb_run_name", "cats"),
)

PIXELS = (
    *BASE,
    text("output_name", "pixels"),
    path("train_data_dir", "images", "subset.image_dir"),
    text("resolution", "128", [128, 128], "dataset.resolution"),
    text("caption_extension", ".txt", setting="subset.caption_extension"),
    text("max_data_loader_n_workers", "0", 0),
    text("max_train_steps", "2", 2),
    flag("color_aug", "subset.color_aug"),
    flag("random_crop", "subset.random_crop"),
    text("face_crop_aug_range", "1.0,2.0", [1.0, 2.0], "subset.face_crop_aug_range"),
    flag("sdpa"),
    flag("use_8bit_adam", "optimizer_type", "AdamW8bit"),
    flag("fused_backward_pass"),
    flag("optimizer_states_on_cpu"),
    flag("channels_last"),
    flag("tf32"),
    text("checkpoint_blocks", "down_blocks.0", ["down_blocks.0"]),
    flag("cpu_offload_checkpointing"),
    flag("torch_compile"),
    text("dynamo_backend", "eager"),
    flag("use_safetensors", "save_model_as", "safetensors"),
    text("lr_scheduler_type", "torch.optim.lr_scheduler.ExponentialLR"),
    Row("lr_scheduler_args", ("gamma=0.5",), "lr_scheduler_args", ["gamma=0.5"]),
)

RESTARTS = (
    *BASE,
    text("output_name", "restarts"),
    path("train_data_dir", "images", "subset.image_dir"),
    text("resolution", "128", [128, 128], "dataset.resolution"),
    text("caption_extension", ".txt", setting="subset.caption_extension"),
    text("max_train_steps", "2", 2),
    flag("save_state_on_train_end"),
    flag("diffusers_xformers", "xformers"),
    text("lr_scheduler", "cosine_with_restarts"),
    text("lr_scheduler_num_cycles", "2", 2),
)

VELOCITY = (
    path("pretrained_model_name_or_path", "model-v"),
    path("output_dir", "out"),
    text("output_name", "velocity"),
    path("train_data_dir", "images", "subset.image_dir"),
    text("resolution", "128", [128, 128], "dataset.resolution"),
    text("caption_extension", ".txt", setting="subset.caption_extension"),
    text("max_train_steps", "2", 2),
    flag("v2"),
    flag("v_parameterization"),
    flag("zero_terminal_snr"),
    flag("scale_v_pred_loss_like_noise_pred"),
    text("lr_scheduler", "inverse_sqrt"),
    text("lr_scheduler_timescale", "3", 3),
)

RESUMED = (
    *(row for row in RESTARTS if row.option != "max_train_steps"),
    text("max_train_steps", "3", 3),
    path("resume", "out/restarts.run/states/step00000002"),
)

RUNS = {
    "old form": OLD_FORM,
    "files": FILES,
    "pixels": PIXELS,
    "restarts": RESTARTS,
    "velocity": VELOCITY,
    "resumed": RESUMED,
}
"""In this order: the last one goes on from a state of an earlier one."""


def words_of(rows: tuple[Row, ...]) -> list[str]:
    return [word for row in rows for word in (f"--{row.option}", *row.words)]
