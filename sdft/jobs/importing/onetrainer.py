"""Settings files of OneTrainer: a nested .json with upper-case choices and a list of concepts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sdft.jobs.importing.foreign import Foreign, is_set

_NAMES = {
    "base_model_name": "pretrained_model_name_or_path",
    "batch_size": "train_batch_size",
    "epochs": "max_train_epochs",
    "gradient_accumulation_steps": "gradient_accumulation_steps",
    "learning_rate": "learning_rate",
    "learning_rate_cycles": "lr_scheduler_num_cycles",
    "learning_rate_warmup_steps": "lr_warmup_steps",
    "learning_rate_min_factor": "lr_scheduler_min_lr_ratio",
    "clip_grad_norm": "max_grad_norm",
    "seed": "seed",
    "offset_noise_weight": "noise_offset",
    "ema_decay": "ema_decay",
    "dataloader_threads": "max_data_loader_n_workers",
    "clip_skip": "clip_skip",
    "cache_dir": "cache_dir",
}

_OPTIMIZERS = {
    "ADAMW": "AdamW",
    "ADAMW_8BIT": "AdamW8bit",
    "ADAFACTOR": "Adafactor",
    "LION": "Lion",
    "LION_8BIT": "Lion8bit",
    "PRODIGY": "Prodigy",
    "SCHEDULE_FREE_ADAMW": "AdamWScheduleFree",
    "SGD": "torch.optim.SGD",
}
_OPTIMIZER_ARGS = ("weight_decay", "eps", "momentum", "d_coef", "relative_step", "scale_parameter")

_SCHEDULERS = {
    "CONSTANT": "constant",
    "LINEAR": "linear",
    "COSINE": "cosine",
    "COSINE_WITH_RESTARTS": "cosine_with_restarts",
    "COSINE_WITH_HARD_RESTARTS": "cosine_with_restarts",
}

_FORMS = {"SAFETENSORS": "safetensors", "CKPT": "ckpt", "DIFFUSERS": "diffusers_safetensors"}
_SAVED = {"FLOAT_32": "float", "FLOAT_16": "fp16", "BFLOAT_16": "bf16"}
_TRAINED = {"FLOAT_32": "no", "FLOAT_16": "fp16", "BFLOAT_16": "bf16"}

_FAMILIES = ("STABLE_DIFFUSION_15", "STABLE_DIFFUSION_20", "STABLE_DIFFUSION_21")


def from_onetrainer(values: Mapping[str, Any]) -> Foreign:
    """Return what a settings file of OneTrainer asks for, as far as there is a setting for it."""
    found = Foreign("OneTrainer")
    method, family = values.get("training_method", "FINE_TUNE"), values.get("model_type")
    if method != "FINE_TUNE":
        found.drop(f"training_method = {method}", "sdft trains the whole U-Net")
    if family is not None and not str(family).startswith(_FAMILIES):
        found.drop(f"model_type = {family}", "sdft trains Stable Diffusion 1.x and 2.x")
    for old, new in _NAMES.items():
        if is_set(values.get(old)):
            value = values[old]
            found.take(old, new, int(value) if _is_whole(value) else value)
    _chosen(values, found)
    _switched(values, found)
    _resolution(values, found)
    _optimizer(values, found)
    _output(values, found)
    _networks(values, found)
    _concepts(values, found)
    return found


def _is_whole(value: object) -> bool:
    return isinstance(value, float) and value.is_integer() and value >= 1


def _chosen(values: Mapping[str, Any], found: Foreign) -> None:
    tables = (
        ("learning_rate_scheduler", "lr_scheduler", _SCHEDULERS),
        ("output_model_format", "save_model_as", _FORMS),
        ("output_dtype", "save_precision", _SAVED),
        ("train_dtype", "mixed_precision", _TRAINED),
    )
    for old, new, table in tables:
        value = values.get(old)
        if value is None:
            continue
        if value in table:
            found.take(old, new, table[value])
        else:
            found.drop(f"{old} = {value}", f"{new} knows {', '.join(table.values())}")


def _switched(values: Mapping[str, Any], found: Foreign) -> None:
    scheduler = found.settings.get("lr_scheduler")
    if scheduler == "constant" and is_set(values.get("learning_rate_warmup_steps")):
        found.settings["lr_scheduler"] = "constant_with_warmup"
    ema = values.get("ema")
    if ema in ("GPU", "CPU"):
        found.take("ema", "ema", True)
        found.take("ema (where)", "ema_device", "cpu" if ema == "CPU" else "same")
    else:
        found.settings.pop("ema_decay", None)
    if values.get("gradient_checkpointing") in ("ON", "CPU_OFFLOADED", True):
        found.take("gradient_checkpointing", "gradient_checkpointing", True)
    if values.get("masked_training"):
        found.take("masked_training", "alpha_mask", True)
    if values.get("aspect_ratio_bucketing"):
        found.take("aspect_ratio_bucketing", "enable_bucket", True)
    if values.get("latent_caching"):
        found.take("latent_caching", "cache_latents_to_disk", True)


def _resolution(values: Mapping[str, Any], found: Foreign) -> None:
    resolution = str(values.get("resolution") or "")
    if resolution:
        first, *others = [side.strip() for side in resolution.replace("x", ",").split(",")]
        found.take("resolution", "resolution", first)
        if others:
            why = f"only {first} is taken: give each further size a [[datasets]] of its own"
            found.drop(f"resolution = {resolution}", why)


def _optimizer(values: Mapping[str, Any], found: Foreign) -> None:
    optimizer = values.get("optimizer") or {}
    name = optimizer.get("optimizer") if isinstance(optimizer, dict) else optimizer
    if name is None:
        return
    if name not in _OPTIMIZERS:
        found.drop(f"optimizer = {name}", "name one in optimizer_type")
        return
    found.take("optimizer", "optimizer_type", _OPTIMIZERS[name])
    if not isinstance(optimizer, dict):
        return
    arguments = [f"{key}={optimizer[key]}" for key in _OPTIMIZER_ARGS if optimizer.get(key)]
    if optimizer.get("beta1") is not None and optimizer.get("beta2") is not None:
        arguments.append(f"betas={optimizer['beta1']},{optimizer['beta2']}")
    if arguments:
        found.take("optimizer.*", "optimizer_args", tuple(arguments))


def _output(values: Mapping[str, Any], found: Foreign) -> None:
    destination = str(values.get("output_model_destination") or "").replace("\\", "/")
    if destination:
        folder, _, name = destination.rpartition("/")
        found.take("output_model_destination", "output_dir", folder or ".")
        stem = name.rpartition(".")[0] or name
        if stem:
            found.take("output_model_destination (name)", "output_name", stem)
    unit = str(values.get("save_every_unit") or values.get("save_after_unit") or "NEVER")
    every = values.get("save_every") or values.get("save_after")
    if unit in ("EPOCH", "STEP") and every:
        name = "save_every_n_epochs" if unit == "EPOCH" else "save_every_n_steps"
        found.take("save_every", name, int(every))


def _networks(values: Mapping[str, Any], found: Foreign) -> None:
    text = values.get("text_encoder") or {}
    if text.get("train"):
        found.take("text_encoder.train", "train_text_encoder", True)
        if text.get("learning_rate"):
            found.take("text_encoder.learning_rate", "learning_rate_te", text["learning_rate"])
    vae = (values.get("vae") or {}).get("model_name")
    if vae:
        found.take("vae.model_name", "vae", vae)


def _concepts(values: Mapping[str, Any], found: Foreign) -> None:
    concepts = values.get("concepts")
    if not concepts:
        if values.get("concept_file_name"):
            why = "import that file's folders by hand, or put its list under concepts"
            found.drop(f"concept_file_name = {values['concept_file_name']}", why)
        return
    subsets: list[dict[str, Any]] = []
    for concept in concepts:
        if not concept.get("enabled", True) or not concept.get("path"):
            found.drop(f"concept {concept.get('name') or '?'}", "it is turned off, or has no path")
            continue
        image, text = concept.get("image") or {}, concept.get("text") or {}
        subset: dict[str, Any] = {"image_dir": concept["path"], "caption_extension": ".txt"}
        if concept.get("include_subdirectories"):
            subset["recursive"] = True
        repeats = concept.get("balancing") or concept.get("repeats") or 1
        subset["num_repeats"] = max(1, round(float(repeats)))
        if image.get("enable_random_flip"):
            subset["flip_aug"] = True
        if image.get("enable_crop_jitter"):
            subset["random_crop"] = True
        if text.get("enable_tag_shuffling"):
            subset["shuffle_caption"] = True
            subset["keep_tokens"] = int(text.get("keep_tags_count") or 0)
            subset["caption_separator"] = text.get("tag_delimiter") or ","
        if text.get("prompt_source") not in (None, "sample"):
            why = "captions beside the images, .txt, are taken"
            found.drop(f"prompt_source = {text['prompt_source']}", why)
        subsets.append(subset)
    if subsets:
        found.datasets.append({"subsets": subsets})
        found.mapped.append(("concepts", "[[datasets.subsets]]"))
