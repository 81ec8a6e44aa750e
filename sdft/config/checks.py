"""Checks across settings: what fits its own declaration and still cannot work with the rest.

In: resolved settings and where each was set. Out: problems (to be mended) or notices.
Only the checks of paths look at the disk.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from sdft.config.checks_machine import EFFECTS_OF_MACHINE, problems_of_fsdp, problems_of_memory
from sdft.config.checks_network import effects_of_network, problems_of_network
from sdft.config.checks_watch import problems_of_watched_files, problems_of_watching
from sdft.config.dataset import DatasetSettings, SubsetSettings
from sdft.config.merge import missing_path
from sdft.config.own_rates import unread_rates
from sdft.config.places import Origins
from sdft.config.places import place as _place
from sdft.config.training import TrainingSettings
from sdft.errors import Problem
from sdft.urls import as_path
from sdft.windows import is_file_name

SIDE_STEP_PX = 8
"""A VAE of this family makes one latent value of 8 x 8 pixels."""


def problems_in(
    training: TrainingSettings, datasets: Sequence[DatasetSettings], origins: Origins
) -> list[Problem]:
    """Return what cannot work, whatever the command."""
    found = [
        *_training(training, origins),
        *_masks(training, datasets, origins),
        *problems_of_memory(training, origins),
        *problems_of_fsdp(training, origins),
        *problems_of_network(training, origins),
        *problems_of_watching(training, datasets, origins),
    ]
    for number, dataset in enumerate(datasets):
        dotted = f"datasets.{number}"
        found += _dataset(dataset, dotted, origins)
        for index, subset in enumerate(dataset.subsets):
            found += _subset(subset, f"{dotted}.subsets.{index}", dataset, training, origins)
    return found


def problems_of_training(training: TrainingSettings, origins: Origins) -> list[Problem]:
    """Return what stands in the way of a training run: what is not named, or not there."""
    found = []
    if training.pretrained_model_name_or_path is None:
        found.append(
            Problem(
                "no base model is named",
                "pretrained_model_name_or_path",
                "give --pretrained_model_name_or_path with a model file or folder",
                "no_base_model",
            )
        )
    if training.output_dir is None:
        fix = "give --output_dir FOLDER"
        found.append(Problem("no output folder is named", "output_dir", fix, "no_output_dir"))
    for name in ("pretrained_model_name_or_path", "vae", "sample_prompts", "log_tracker_config"):
        path = getattr(training, name)
        if path is not None and not path.exists():
            what, fix = missing_path(path, "file") or ("", "")
            if name in ("pretrained_model_name_or_path", "vae"):
                what = what.replace("no such file", "no such file or folder")
                fix = fix or "a model has to be on disk: sdft downloads none"
            place, values = _place(origins, name), {"path": path}
            found.append(Problem(what, place, fix, "setting_names_nothing", values))
    found += problems_of_watched_files(training)
    if training.resume not in (None, "auto"):
        missing = missing_path(as_path(str(training.resume)), "folder")
        if missing:
            found.append(Problem(missing[0], _place(origins, "resume"), missing[1]))
    return found


def _training(training: TrainingSettings, origins: Origins) -> Iterator[Problem]:
    t = training

    def problem(what: str, *names: str, fix: str = "") -> Problem:
        return Problem(what, _place(origins, *names), fix)

    if t.min_timestep >= t.max_timestep:
        yield problem(
            f"min_timestep {t.min_timestep} is not below max_timestep {t.max_timestep}",
            "min_timestep",
            "max_timestep",
            fix="timesteps run from min_timestep up to, not including, max_timestep",
        )
    if t.adaptive_noise_scale is not None and t.noise_offset is None:
        yield problem("adaptive_noise_scale needs noise_offset", "adaptive_noise_scale")
    if t.scale_v_pred_loss_like_noise_pred and t.v_parameterization is False:
        yield problem(
            "scale_v_pred_loss_like_noise_pred is for models that predict v",
            "scale_v_pred_loss_like_noise_pred",
            fix="remove it, or set v_parameterization",
        )
    if t.v_pred_like_loss is not None and t.v_parameterization:
        yield problem("v_pred_like_loss is for models that predict noise", "v_pred_like_loss")
    if t.full_fp16 and t.full_bf16:
        yield problem("full_fp16 and full_bf16 exclude each other", "full_bf16", "full_fp16")
    for name, precision in (("full_fp16", "fp16"), ("full_bf16", "bf16")):
        if getattr(t, name) and t.mixed_precision != precision:
            yield problem(
                f"{name} needs mixed_precision {precision}; it is {t.mixed_precision}",
                name,
                fix=f'set mixed_precision = "{precision}"',
            )
    if t.ema and t.optimizer_type.lower().endswith("schedulefree"):
        yield problem(
            f"{t.optimizer_type} keeps an average of its own",
            "ema",
            fix="remove ema: the weights that are saved are averaged already",
        )
    if t.resume is not None and t.overwrite:
        yield problem("resume goes on with a run and overwrite replaces it", "overwrite", "resume")
    if t.output_name is not None and not is_file_name(t.output_name):
        yield problem(
            f'output_name "{t.output_name}" cannot be a file name',
            "output_name",
            fix='a name without / \\ : * ? " < > | is wanted, not con or nul, without a dot or'
            " space at its end; folders belong in output_dir",
        )
    yield from _learning_rate(t, origins)


def _masks(
    t: TrainingSettings, datasets: Sequence[DatasetSettings], origins: Origins
) -> Iterator[Problem]:
    subsets = [subset for dataset in datasets for subset in dataset.subsets]
    if t.masked_loss and not any(s.conditioning_data_dir or s.alpha_mask for s in subsets):
        yield Problem(
            "masked_loss is set, and no subset has masks",
            _place(origins, "masked_loss"),
            "name their folder in conditioning_data_dir of a subset, or set alpha_mask",
        )


def _learning_rate(t: TrainingSettings, origins: Origins) -> Iterator[Problem]:
    def problem(what: str, *names: str, fix: str = "") -> Problem:
        return Problem(what, _place(origins, *names), fix)

    custom = t.lr_scheduler_type is not None
    if t.lr_warmup_steps and (custom or t.lr_scheduler == "constant"):
        kind = t.lr_scheduler_type if custom else "constant"
        yield problem(
            f"lr_scheduler {kind} has no warm-up",
            "lr_warmup_steps",
            fix="use constant_with_warmup, or remove lr_warmup_steps",
        )
    needs_ratio = t.lr_scheduler in ("cosine_with_min_lr", "cosine_warmup_with_min_lr")
    if not custom and needs_ratio and t.lr_scheduler_min_lr_ratio is None:
        yield problem(
            f"lr_scheduler {t.lr_scheduler} needs lr_scheduler_min_lr_ratio", "lr_scheduler"
        )
    names = {argument.partition("=")[0].strip() for argument in t.lr_scheduler_args}
    if not custom and t.lr_scheduler == "piecewise_constant" and "step_rules" not in names:
        yield problem(
            "lr_scheduler piecewise_constant needs its rules",
            "lr_scheduler",
            fix='add lr_scheduler_args = ["step_rules=1:10,0.1:20,0.01"]',
        )
    if not custom and t.lr_scheduler == "adafactor" and t.optimizer_type != "Adafactor":
        yield problem("lr_scheduler adafactor needs optimizer_type Adafactor", "lr_scheduler")
    if custom and t.lr_scheduler_type and "." not in t.lr_scheduler_type:
        yield problem(
            f"lr_scheduler_type {t.lr_scheduler_type} is no class path",
            "lr_scheduler_type",
            fix="write module.Class, or use lr_scheduler for the names it knows",
        )
    phases = [t.lr_warmup_steps, t.lr_decay_steps]
    # A share counts in units of the run; with max_train_epochs the steps are not known yet.
    known = t.max_train_epochs is None or all(phase < 1 for phase in phases)
    steps = [phase * t.max_train_steps if phase < 1 else phase for phase in phases]
    if known and sum(steps) > t.max_train_steps:
        yield problem(
            f"warm-up and decay take {sum(steps):g} steps of {t.max_train_steps}",
            "lr_warmup_steps",
            "lr_decay_steps",
        )


def _dataset(d: DatasetSettings, dotted: str, origins: Origins) -> Iterator[Problem]:
    def problem(what: str, *names: str, fix: str = "") -> Problem:
        return Problem(what, _place(origins, *(f"{dotted}.{name}" for name in names)), fix)

    if not d.enable_bucket:
        for side in d.resolution:
            if side % SIDE_STEP_PX:
                below = side // SIDE_STEP_PX * SIDE_STEP_PX
                near = " or ".join(str(s) for s in (below, below + SIDE_STEP_PX) if s)
                yield problem(
                    f"without buckets, sides must be multiples of {SIDE_STEP_PX} px; {side} is not",
                    "resolution",
                    fix=f"use {near}, or set enable_bucket = true",
                )
                break
        return
    if d.bucket_reso_steps % SIDE_STEP_PX:
        yield problem(
            f"bucket_reso_steps must be a multiple of {SIDE_STEP_PX} px; "
            f"{d.bucket_reso_steps} is not",
            "bucket_reso_steps",
            fix="use 64",
        )
        return
    if d.bucket_no_upscale:
        return
    if d.min_bucket_reso < d.bucket_reso_steps:
        yield problem(
            f"min_bucket_reso {d.min_bucket_reso} is below bucket_reso_steps {d.bucket_reso_steps}",
            "min_bucket_reso",
            "bucket_reso_steps",
        )
    if d.min_bucket_reso > d.max_bucket_reso:
        yield problem(
            f"min_bucket_reso {d.min_bucket_reso} is above max_bucket_reso {d.max_bucket_reso}",
            "min_bucket_reso",
            "max_bucket_reso",
        )
    elif min(d.resolution) < d.min_bucket_reso:
        yield problem(
            f"resolution {_sides(d)} is below min_bucket_reso {d.min_bucket_reso}",
            "resolution",
            "min_bucket_reso",
            fix=f"set min_bucket_reso to {min(d.resolution)} or less",
        )
    elif max(d.resolution) > d.max_bucket_reso:
        yield problem(
            f"resolution {_sides(d)} is above max_bucket_reso {d.max_bucket_reso}",
            "resolution",
            "max_bucket_reso",
            fix=f"set max_bucket_reso to {max(d.resolution)} or more",
        )


def _sides(d: DatasetSettings) -> str:
    return "x".join(str(side) for side in d.resolution)


def _subset(
    s: SubsetSettings, dotted: str, d: DatasetSettings, t: TrainingSettings, origins: Origins
) -> Iterator[Problem]:
    def problem(what: str, *names: str, fix: str = "") -> Problem:
        return Problem(what, _place(origins, *(f"{dotted}.{name}" for name in names)), fix)

    folders = ("image_dir", "conditioning_data_dir")
    for name in (*folders, "metadata_file"):
        path = getattr(s, name)
        kind = "folder" if name in folders else "file"
        missing = missing_path(path, kind) if path is not None else None
        if missing:
            one = problem(f"{name}: {missing[0]}", name, fix=missing[1])
            yield replace(one, key="setting_names_nothing", values={"path": path})
    for name in ("color_aug", "random_crop", "face_crop_aug_range"):
        # Not where it is merely the default: those images are then encoded in each step.
        asked = t.cache_latents and origins.get("cache_latents", "default") != "default"
        if getattr(s, name) and asked:
            yield problem(
                f"{name} changes the image on every use, so its latents cannot be cached",
                name,
                fix=f"remove cache_latents or {name}",
            )
    masked = s.alpha_mask or s.conditioning_data_dir
    for name in ("random_crop", "face_crop_aug_range"):
        if getattr(s, name) and masked:
            yield problem(
                f"a mask cannot follow a picture that {name} cuts anew on every use",
                name,
                fix=f"remove {name} or the mask",
            )
    if s.conditioning_data_dir is not None and not t.masked_loss:
        yield problem(
            "pictures for a ControlNet cannot be trained on",
            "conditioning_data_dir",
            fix="if they are masks, set masked_loss = true",
        )
    if s.conditioning_data_dir is not None and s.alpha_mask:
        yield problem(
            "an image has one mask: its alpha channel, or a picture of its own",
            "alpha_mask",
            "conditioning_data_dir",
        )
    if s.face_crop_aug_range and d.enable_bucket:
        yield problem(
            "face_crop_aug_range works only without buckets",
            "face_crop_aug_range",
            fix="set enable_bucket = false, or remove it",
        )
    if s.metadata_file is None and not s.caption_extension.startswith("."):
        yield problem(
            f'caption_extension "{s.caption_extension}" has no dot in front',
            "caption_extension",
            fix=f'write ".{s.caption_extension}"',
        )
    if not s.caption_separator and (s.shuffle_caption or s.caption_tag_dropout_rate):
        yield problem(
            "without a caption_separator there are no tags to shuffle or to leave out",
            "caption_separator",
        )


_HUBER = ("huber", "smooth_l1")

_EFFECTS: dict[str, tuple[str, Callable[[TrainingSettings], object]]] = {
    **EFFECTS_OF_MACHINE,
    "noise_offset_random_strength": ("noise_offset", lambda t: t.noise_offset),
    "multires_noise_discount": (
        "multires_noise_iterations",
        lambda t: t.multires_noise_iterations,
    ),
    "ip_noise_gamma_random_strength": ("ip_noise_gamma", lambda t: t.ip_noise_gamma),
    "huber_schedule": ("loss_type huber or smooth_l1", lambda t: t.loss_type in _HUBER),
    "huber_c": ("loss_type huber or smooth_l1", lambda t: t.loss_type in _HUBER),
    "huber_scale": (
        "loss_type huber or smooth_l1, and another huber_schedule than snr",
        lambda t: t.loss_type in _HUBER and t.huber_schedule != "snr",
    ),
    "skip_until_initial_step": ("initial_step", lambda t: t.initial_step is not None),
    "max_bad_steps": ("on_bad_step skip", lambda t: t.on_bad_step == "skip"),
    "rolling_state_minutes": ("a rolling state", lambda t: not t.no_rolling_state),
    "rolling_state_steps": ("a rolling state", lambda t: not t.no_rolling_state),
    "stochastic_rounding": ("full_bf16", lambda t: t.full_bf16),
    "cut_at_commas": ("max_token_length 150 or 225", lambda t: t.max_token_length > 75),
    "learning_rate_te": ("train_text_encoder", lambda t: t.train_text_encoder),
    "lr_decay_steps": (
        "lr_scheduler warmup_stable_decay",
        lambda t: t.lr_scheduler == "warmup_stable_decay",
    ),
    "lr_scheduler_power": ("lr_scheduler polynomial", lambda t: t.lr_scheduler == "polynomial"),
    "lr_scheduler_timescale": (
        "lr_scheduler inverse_sqrt",
        lambda t: t.lr_scheduler == "inverse_sqrt",
    ),
    "ema_decay": ("ema", lambda t: t.ema),
    "ema_device": ("ema", lambda t: t.ema),
    "sample_sampler": ("sample_prompts", lambda t: t.sample_prompts),
    "save_last_n_steps": ("save_every_n_steps", lambda t: t.save_every_n_steps),
    "save_last_n_epochs": (
        "save_every_n_epochs or save_n_epoch_ratio",
        lambda t: t.save_every_n_epochs or t.save_n_epoch_ratio,
    ),
    "save_last_n_steps_state": ("save_state", lambda t: t.save_state),
    "save_last_n_epochs_state": ("save_state", lambda t: t.save_state),
    "cache_dtype": ("cache_latents", lambda t: t.cache_latents),
    "cache_moments": ("cache_latents", lambda t: t.cache_latents),
    "log_prefix": ("logging_dir", lambda t: t.logging_dir),
    "log_tracker_name": ("log_with or logging_dir", lambda t: t.log_with or t.logging_dir),
    "log_tracker_config": ("log_with or logging_dir", lambda t: t.log_with or t.logging_dir),
    "log_config": ("log_with or logging_dir", lambda t: t.log_with or t.logging_dir),
    "huggingface_repo_type": ("huggingface_repo_id", lambda t: t.huggingface_repo_id),
    "huggingface_path_in_repo": ("huggingface_repo_id", lambda t: t.huggingface_repo_id),
    "huggingface_repo_visibility": ("huggingface_repo_id", lambda t: t.huggingface_repo_id),
    "save_state_to_huggingface": ("huggingface_repo_id", lambda t: t.huggingface_repo_id),
    "wandb_run_name": ("log_with wandb or all", lambda t: t.log_with in ("wandb", "all")),
}
"""Setting to what it needs to have an effect: in words, and as a test."""


def effects_missing(training: TrainingSettings, origins: Origins) -> list[Problem]:
    """Return notices: settings that change nothing as things are, and choices that look odd."""
    found = []
    for name, (needed, has_effect) in _EFFECTS.items():
        is_set = getattr(training, name) != type(training).model_fields[name].default
        if is_set and not has_effect(training):
            found.append(Problem(f"{name} has no effect without {needed}", _place(origins, name)))
    found += effects_of_network(training, origins)
    for name, reason in unread_rates(training):
        found.append(Problem(f"{name} has no effect: {reason}", _place(origins, name)))
    if training.zero_terminal_snr and not training.v_parameterization:
        found.append(
            Problem(
                "zero_terminal_snr is meant for models that predict v; one that predicts noise "
                "learns nothing from the last timestep",
                _place(origins, "zero_terminal_snr"),
            )
        )
    if training.clip_skip is not None and training.v2:
        found.append(
            Problem(
                "the text encoder of 2.x already ends at its last layer but one; "
                "clip_skip is unusual",
                _place(origins, "clip_skip"),
            )
        )
    asked = [n for n in ("mem_eff_attn", "xformers", "sdpa") if getattr(training, n)]
    if len(asked) > 1:
        what = f"{' and '.join(asked)} are asked for: {asked[0]} is used"
        found.append(Problem(what, _place(origins, *asked)))
    return found
