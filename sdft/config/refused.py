"""What sd-scripts' `fine_tune.py` takes and `sdft` does not, and what to use instead.

To refuse a training setting, remove its field and add a row here; nothing else needs a change.
A dataset key may keep its field: a row here wins over it.
"""

from __future__ import annotations

_NOT_YET = "not supported yet"
_DEEPSPEED = (
    "DeepSpeed is not used; gradient_checkpointing and an 8-bit optimizer save memory on one GPU,"
    " and on several fsdp does what ZeRO 3 does"
)
_LOG = (
    "not supported; the whole log is in log.txt of the run folder, and --quiet silences the screen"
)

REFUSED: dict[str, str] = {
    "console_log_level": _LOG,
    "console_log_file": _LOG,
    "dataset_class": "classes of your own are not supported; use a dataset file",
    "debug_dataset": "not supported; use `sdft bucket CONFIG` to see what becomes of each image",
    "fp8_base": "not supported, nor had it an effect; use mixed_precision and an 8-bit optimizer",
    "lowram": f"{_NOT_YET}; the model is loaded in main memory",
    "resume_from_huggingface": f"{_NOT_YET}; download the state and name its folder in resume",
    "huggingface_token": "a token on a command line is seen by others; set HF_TOKEN instead",
    "wandb_api_key": "a key on a command line is seen by others; set WANDB_API_KEY instead",
    "deepspeed": _DEEPSPEED,
    "zero_stage": _DEEPSPEED,
    "offload_optimizer_device": _DEEPSPEED,
    "offload_optimizer_nvme_path": _DEEPSPEED,
    "offload_param_device": _DEEPSPEED,
    "offload_param_nvme_path": _DEEPSPEED,
    "zero3_init_flag": _DEEPSPEED,
    "zero3_save_16bit_model": _DEEPSPEED,
    "fp16_master_weights_and_gradients": _DEEPSPEED,
    # Dataset keys, in a dataset file or as flags.
    # Options of sd-scripts' other training scripts.
    "network_module": "LoRA is not supported; sdft trains the whole U-Net",
    "reg_data_dir": "write a dataset file with is_reg = true in a subset",
}
"""Option to what is said when it is set. False and none count as not set."""

LORA_NAMES = frozenset(
    (
        "network_alpha",
        "network_args",
        "network_dim",
        "network_dropout",
        "network_train_text_encoder_only",
        "network_train_unet_only",
        "network_weights",
    )
)
"""Options of sd-scripts' train_network.py that would else be taken for misspelt ones."""

LORA_ADVICE = "it belongs to LoRA, which is not supported; sdft trains the whole U-Net"

NEEDLESS: dict[str, str] = {
    "tokenizer_cache_dir": "the tokenizer ships with sdft and is never downloaded",
    "console_log_simple": "where the output is not a terminal, plain lines are written anyway",
    "skip_cache_check": "cached latents are found by their content, which needs no such check",
    "cache_info": "indexing reads only headers, so there is nothing to keep",
    "persistent_data_loader_workers": "workers live as long as the run anyway",
    "highvram": "GPU memory is never given back while latents are encoded",
    "async_upload": "files are sent while the run goes on anyway",
    "network_multiplier": "it concerns LoRA only",
    "custom_attributes": "nothing here reads it",
}
"""Options that are accepted, with this said as a notice: what they ask for is so anyway."""


def is_asked(value: object) -> bool:
    """Whether a value asks for anything: false, none and empty ones do not."""
    return value is not None and value is not False and value not in ("", [], {}, ())
