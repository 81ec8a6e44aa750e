"""Settings files of SimpleTuner: a flat config.json, and a list of data backends beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sdft.jobs.importing.foreign import Foreign, is_set

_NAMES = {
    "pretrained_model_name_or_path": "pretrained_model_name_or_path",
    "pretrained_vae_model_name_or_path": "vae",
    "output_dir": "output_dir",
    "train_batch_size": "train_batch_size",
    "max_train_steps": "max_train_steps",
    "num_train_epochs": "max_train_epochs",
    "learning_rate": "learning_rate",
    "text_encoder_lr": "learning_rate_te",
    "lr_warmup_steps": "lr_warmup_steps",
    "lr_num_cycles": "lr_scheduler_num_cycles",
    "lr_power": "lr_scheduler_power",
    "gradient_accumulation_steps": "gradient_accumulation_steps",
    "gradient_checkpointing": "gradient_checkpointing",
    "mixed_precision": "mixed_precision",
    "max_grad_norm": "max_grad_norm",
    "seed": "seed",
    "use_ema": "ema",
    "ema_decay": "ema_decay",
    "snr_gamma": "min_snr_gamma",
    "noise_offset": "noise_offset",
    "checkpointing_steps": "save_every_n_steps",
    "checkpoint_step_interval": "save_every_n_steps",
    "caption_dropout_probability": "caption_dropout_rate",
    "train_text_encoder": "train_text_encoder",
    "vae_batch_size": "vae_batch_size",
    "rescale_betas_zero_snr": "zero_terminal_snr",
    "input_perturbation": "ip_noise_gamma",
}

_SCHEDULERS = {
    name: name for name in ("constant", "constant_with_warmup", "linear", "cosine", "polynomial")
} | {"cosine_with_restarts": "cosine_with_restarts"}

_OPTIMIZERS = {
    "adamw": "AdamW",
    "adamw_bf16": "AdamW",
    "bnb-adamw8bit": "AdamW8bit",
    "bnb-adamw8bit-paged": "PagedAdamW8bit",
    "bnb-lion8bit": "Lion8bit",
    "adafactor": "Adafactor",
    "prodigy": "Prodigy",
    "optimi-lion": "Lion",
}

FAMILIES = ("sd1x", "sd2x", "legacy", None)


def from_simpletuner(values: Mapping[str, Any], backends: Sequence[Any]) -> Foreign:
    """Return what a config.json asks for; `backends` is the list that it names, read already."""
    found = Foreign("SimpleTuner")
    plain = {key.lstrip("-"): value for key, value in values.items()}
    if plain.get("model_type") not in (None, "full"):
        found.drop(f"model_type = {plain['model_type']}", "sdft trains the whole U-Net")
    if plain.get("model_family") not in FAMILIES:
        what = f"model_family = {plain['model_family']}"
        found.drop(what, "sdft trains Stable Diffusion 1.x and 2.x")
    for old, value in plain.items():
        if old in _NAMES and is_set(value):
            value_here = True if value == "true" else value
            if value_here != "false":
                found.take(old, _NAMES[old], value_here)
    _chosen(plain, found)
    known = {*_NAMES, "lr_scheduler", "optimizer", "resolution", "model_type", "model_family"}
    for old in sorted(plain.keys() - known - {"data_backend_config"}):
        if is_set(plain[old]) and plain[old] != "false":
            found.drop(old, "there is no setting for it")
    _backends(backends, found)
    return found


def _chosen(plain: Mapping[str, Any], found: Foreign) -> None:
    if not found.settings.get("ema"):
        found.settings.pop("ema_decay", None)
    for old, new, table in (
        ("lr_scheduler", "lr_scheduler", _SCHEDULERS),
        ("optimizer", "optimizer_type", _OPTIMIZERS),
    ):
        value = plain.get(old)
        if value in table:
            found.take(old, new, table[value])
        elif value is not None:
            found.drop(f"{old} = {value}", f"{new} knows {', '.join(sorted(set(table.values())))}")
    if plain.get("optimizer") == "adamw_bf16":
        found.take("optimizer = adamw_bf16", "full_bf16", True)
    resolution = plain.get("resolution")
    if is_set(resolution):
        found.take("resolution", "resolution", _pixels(resolution))
        found.take("aspect buckets", "enable_bucket", True)
    if found.settings.get("lr_scheduler") == "constant" and "lr_warmup_steps" in found.settings:
        found.settings["lr_scheduler"] = "constant_with_warmup"


def _pixels(resolution: object) -> int:
    """Return a side in pixels; below 16 it is megapixels there."""
    number = float(str(resolution))
    return int(number) if number >= 16 else round((number * 1024 * 1024) ** 0.5 / 64) * 64


def _backends(backends: Sequence[Any], found: Foreign) -> None:
    for backend in backends:
        name = backend.get("id", "?")
        if backend.get("disabled") or backend.get("dataset_type", "image") != "image":
            continue
        if backend.get("type") != "local" or not backend.get("instance_data_dir"):
            found.drop(f"data backend {name}", "only folders on this machine are read")
            continue
        # There, repeats are what comes on top of the first use.
        subset: dict[str, Any] = {
            "image_dir": backend["instance_data_dir"],
            "num_repeats": int(backend.get("repeats") or 0) + 1,
            "caption_extension": ".txt",
            "recursive": True,
        }
        if backend.get("caption_strategy") == "instanceprompt":
            subset["class_tokens"] = backend.get("instance_prompt") or ""
        elif backend.get("caption_strategy") not in ("textfile", None):
            why = "captions beside the images, .txt, are taken"
            found.drop(f"caption_strategy = {backend['caption_strategy']} of {name}", why)
        dataset: dict[str, Any] = {"subsets": [subset]}
        if is_set(backend.get("resolution")):
            dataset["resolution"] = _pixels(backend["resolution"])
            dataset["enable_bucket"] = True
        found.datasets.append(dataset)
        found.mapped.append((f"data backend {name}", "[[datasets]]"))
