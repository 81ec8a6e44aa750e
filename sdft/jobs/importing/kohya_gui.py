"""Settings files of the kohya_ss GUI: a flat .json, most names as in sd-scripts.

The GUI writes a 0 or an empty text where nothing is set.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sdft.jobs.importing.foreign import Foreign, is_set, pairs, text_of

RENAMED = {
    "max_resolution": "resolution",
    "epoch": "max_train_epochs",
    "optimizer": "optimizer_type",
    "lr_warmup": "lr_warmup_steps",
    "learning_rate_te1": "learning_rate_te",
    "image_folder": "train_data_dir",
    "create_buckets": "enable_bucket",
}

ZERO_COUNTS = frozenset({"seed", "max_data_loader_n_workers", "learning_rate", "max_grad_norm"})
"""Where a 0 is a value."""

OF_THE_FORM = frozenset(
    {
        "LoRA_type",
        "logging_dir_enable",
        "num_cpu_threads_per_process",
        "num_processes",
        "num_machines",
        "multi_gpu",
        "gpu_ids",
        "main_process_port",
        "model_list",
        "train_dir",
        "folder_list",
        "caption_metadata_filename",
        "latent_metadata_filename",
        "generate_caption_database",
        "generate_image_buckets",
        "use_latent_files",
        "full_path",
        "stop_text_encoder_training",
        "stop_text_encoder_training_pct",
        "extra_accelerate_launch_args",
        "log_tracker_name_enable",
        "dynamo_use_dynamic",
        "dynamo_use_fullgraph",
        "dynamo_mode",
        "additional_parameters",
        "xformers",
        "batch_size",
        "wandb_api_key_enable",
    }
)
"""Fields that concern the form itself, or are read together with another."""

_LORA = ("network_", "LyCORIS", "lora_", "conv_", "block_dims", "block_alphas", "unet_lr", "down_")
_LORA_WORDS = "it concerns LoRA; sdft trains the whole U-Net"

SAME_FORM = "same as source model"


def from_kohya_gui(values: Mapping[str, Any]) -> Foreign:
    """Return what a settings file of the GUI asks for."""
    found = Foreign("kohya_ss GUI")
    for name, value in values.items():
        if name in OF_THE_FORM:
            continue
        if is_set(value) or (name in ZERO_COUNTS and value not in (None, "")):
            _take(name, value, values, found)
    _attention(values, found)
    _metadata(values, found)
    # A warm-up without a rise is an error here, and nothing there.
    if text_of(values, "lr_scheduler") == "constant" and "lr_warmup_steps" in found.settings:
        del found.settings["lr_warmup_steps"]
        found.mapped = [pair for pair in found.mapped if pair[1] != "lr_warmup_steps"]
        found.drop("lr_warmup", "lr_scheduler constant has no warm-up")
    found.extra_line = text_of(values, "additional_parameters")
    return found


def _take(name: str, value: Any, values: Mapping[str, Any], found: Foreign) -> None:
    new = RENAMED.get(name, name)
    if name.startswith(_LORA):
        found.drop(name, _LORA_WORDS)
    elif name == "lr_warmup":
        # A percentage of the run; lr_warmup_steps, where it is there too, says it in steps.
        if not is_set(values.get("lr_warmup_steps")):
            found.take(name, new, f"{value}%")
    elif name in ("optimizer_args", "lr_scheduler_args"):
        found.take(name, new, pairs(str(value)))
    elif name == "save_model_as" and value == SAME_FORM:
        found.mapped.append((f"{name} = {SAME_FORM}", "the default"))
    elif name == "save_precision" and value == "fp32":
        found.take(f"{name} = fp32", new, "float")
    elif name == "sample_prompts" and "\n" in str(value):
        found.drop(name, "the prompts themselves: write them to a file and name it")
    else:
        found.take(name, new, value)


def _attention(values: Mapping[str, Any], found: Foreign) -> None:
    asked = values.get("xformers")
    name = "xformers" if asked is True else text_of(values, "xformers")
    if name in ("xformers", "sdpa", "mem_eff_attn"):
        found.take("xformers" if name == "xformers" else f"xformers = {name}", name, True)


def _metadata(values: Mapping[str, Any], found: Foreign) -> None:
    folder = text_of(values, "train_dir")
    name = text_of(values, "latent_metadata_filename") or text_of(
        values, "caption_metadata_filename"
    )
    if folder and name and "in_json" not in found.settings:
        mark = "" if folder.endswith(("/", "\\")) else "\\" if "\\" in folder else "/"
        found.take("train_dir", "in_json", f"{folder}{mark}{name}")
