"""Settings of what a run writes: checkpoints, states, sample images, logs, metadata."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel

from sdft.config.settings import setting


class OutputSettings(BaseModel, frozen=True, extra="forbid", allow_inf_nan=False, defer_build=True):
    """The part of the training settings that says what is written, when and where."""

    output_dir: Path | None = setting(
        None, help="Folder of the results.", group="saving", common=True, decides=False
    )
    output_name: str | None = setting(
        None,
        help="Name of the result without extension; last if not set.",
        group="saving",
        common=True,
        decides=False,
    )
    save_model_as: (
        Literal["ckpt", "safetensors", "diffusers", "diffusers_safetensors", "pt"] | None
    ) = setting(
        None,
        help="Form of what is saved; if not set, the base model's, or a hypernetwork's pt.",
        group="saving",
        common=True,
    )
    use_safetensors: bool = setting(
        False, help="Save as safetensors where save_model_as is not set.", group="saving"
    )
    save_precision: Literal["float", "fp16", "bf16"] | None = setting(
        None,
        help="Precision of the saved weights; that of training if not set.",
        group="saving",
        common=True,
    )
    save_every_n_steps: int | None = setting(
        None,
        ge=1,
        help="Save a checkpoint each time after so many steps.",
        group="saving",
        unit="steps",
        common=True,
        decides=False,
    )
    save_every_n_epochs: int | None = setting(
        None,
        ge=1,
        help="Save a checkpoint each time after so many epochs.",
        group="saving",
        unit="epochs",
        common=True,
        decides=False,
    )
    save_every_n_minutes: float | None = setting(
        None,
        gt=0,
        help="Save a checkpoint each time after so many minutes.",
        group="saving",
        unit="minutes",
        decides=False,
    )
    save_n_epoch_ratio: int | None = setting(
        None, ge=1, help="Save at least so many times in the run.", group="saving", decides=False
    )
    save_last_n_steps: int | None = setting(
        None,
        ge=1,
        help="Keep only checkpoints younger than this.",
        group="saving",
        unit="steps",
        decides=False,
    )
    save_last_n_epochs: int | None = setting(
        None,
        ge=1,
        help="Keep only the checkpoints of the last epochs.",
        group="saving",
        unit="epochs",
        decides=False,
    )
    save_state: bool = setting(
        False, help="Save a resumable state with each checkpoint.", group="saving", decides=False
    )
    save_state_on_train_end: bool = setting(
        False, help="Save a resumable state at the end.", group="saving", decides=False
    )
    save_last_n_steps_state: int | None = setting(
        None,
        ge=1,
        help="Keep only states younger than this; save_last_n_steps if not set.",
        group="saving",
        unit="steps",
        decides=False,
    )
    save_last_n_epochs_state: int | None = setting(
        None,
        ge=1,
        help="Keep only the states of the last epochs; save_last_n_epochs if not set.",
        group="saving",
        unit="epochs",
        decides=False,
    )
    rolling_state_minutes: float = setting(
        30.0,
        ge=0,
        help="Renew a state to resume from after so many minutes; 0 never does.",
        group="saving",
        unit="minutes",
        decides=False,
    )
    resume: str | None = setting(
        None,
        help="Go on from a state folder, or from the newest state with auto.",
        group="saving",
        common=True,
        decides=False,
        wanted="auto or the path of a state folder",
    )
    overwrite: bool = setting(
        False,
        help="Replace an unfinished run once the new files are whole.",
        group="saving",
        common=True,
        decides=False,
    )

    sample_prompts: Path | None = setting(
        None,
        help="File of prompts to draw while training: .txt, .json or .toml.",
        group="samples",
        common=True,
        decides=False,
    )
    sample_every_n_steps: int | None = setting(
        None,
        ge=1,
        help="Draw samples each time after so many steps.",
        group="samples",
        unit="steps",
        common=True,
        decides=False,
    )
    sample_every_n_epochs: int | None = setting(
        None,
        ge=1,
        help="Draw samples each time after so many epochs; wins over steps.",
        group="samples",
        unit="epochs",
        decides=False,
    )
    sample_every_n_minutes: float | None = setting(
        None,
        gt=0,
        help="Draw samples each time after so many minutes.",
        group="samples",
        unit="minutes",
        decides=False,
    )
    sample_at_first: bool = setting(
        False, help="Draw samples before the first step too.", group="samples", decides=False
    )
    sample_sampler: Literal[
        "ddim",
        "pndm",
        "lms",
        "euler",
        "euler_a",
        "heun",
        "dpm_2",
        "dpm_2_a",
        "dpmsolver",
        "dpmsolver++",
        "dpmsingle",
        "k_lms",
        "k_euler",
        "k_euler_a",
        "k_dpm_2",
        "k_dpm_2_a",
    ] = setting("ddim", help="Sampler of the sample images.", group="samples", decides=False)

    logging_dir: Path | None = setting(
        None,
        help="Folder of the trackers' files; alone it means log_with tensorboard.",
        group="logging",
        decides=False,
    )
    log_with: (
        Literal[
            "tensorboard",
            "wandb",
            "all",
            "aim",
            "clearml",
            "comet_ml",
            "dvclive",
            "mlflow",
            "swanlab",
            "trackio",
        ]
        | None
    ) = setting(
        None,
        help="Where the curves are shown besides the run folder; all is tensorboard and wandb.",
        group="logging",
        decides=False,
    )
    log_prefix: str | None = setting(
        None,
        help="Text before the time in the logging folder's name.",
        group="logging",
        decides=False,
    )
    log_tracker_name: str | None = setting(
        None,
        help="Project name in the tracker; finetuning if not set.",
        group="logging",
        decides=False,
    )
    log_tracker_config: Path | None = setting(
        None, help="TOML file of the tracker's own options.", group="logging", decides=False
    )
    wandb_run_name: str | None = setting(
        None, help="Name of the run in Weights & Biases.", group="logging", decides=False
    )
    log_config: bool = setting(
        False,
        help="Send the settings to the tracker, without paths.",
        group="logging",
        decides=False,
    )

    metadata_title: str | None = setting(
        None, help="Title of the model; output_name if not set.", group="metadata"
    )
    metadata_author: str | None = setting(None, help="Author of the model.", group="metadata")
    metadata_description: str | None = setting(
        None, help="Description of the model.", group="metadata"
    )
    metadata_license: str | None = setting(None, help="Licence of the model.", group="metadata")
    metadata_tags: str | None = setting(
        None, help="Tags of the model, with commas between.", group="metadata"
    )
    metadata_usage_hint: str | None = setting(
        None, help="How the model is best used.", group="metadata"
    )
    metadata_thumbnail: str | None = setting(
        None, help="Picture of the model: an image file or a data URL.", group="metadata"
    )
    metadata_merged_from: str | None = setting(
        None, help="Names of the models that it was merged from.", group="metadata"
    )
    metadata_trigger_phrase: str | None = setting(
        None, help="Words that call up what was learnt.", group="metadata"
    )
    metadata_preprocessor: str | None = setting(
        None, help="Note on how images were prepared.", group="metadata"
    )
    metadata_is_negative_embedding: str | None = setting(
        None, help="Note for embeddings.", group="metadata"
    )
