"""From settings to the engine's recipes: batches, updates, learning rate."""

from __future__ import annotations

from collections.abc import Sequence

from sdft.config.training import TrainingSettings
from sdft.formats.caption_reader import CaptionReader
from sdft.formats.clip_tokens import ClipTokenizer
from sdft.jobs.training.data import TrainingData
from sdft.jobs.training.device_use import attention_kernels, saved_tensors
from sdft.jobs.training.masks import CachedMasks
from sdft.jobs.training.networks import Networks
from sdft.models.bundle import ModelBundle
from sdft.train.batch import BatchMaker
from sdft.train.contexts import Contexts
from sdft.train.latents import LatentSource
from sdft.train.loop import RunPlan
from sdft.train.lr import Factor, build_factor
from sdft.train.lr_custom import custom_factor
from sdft.train.noise import NoiseRecipe
from sdft.train.objective import LossRecipe
from sdft.train.optim import parse_arguments, steps_are_relative
from sdft.train.schedule import alphas_cumprod
from sdft.train.step import Objective, Stepper
from sdft.train.weighting import WeightRecipe


def build_batch_maker(
    settings: TrainingSettings,
    data: TrainingData,
    bundle: ModelBundle,
    latents: LatentSource,
    masks: CachedMasks,
    plan: RunPlan,
    contexts: Contexts | None,
) -> BatchMaker:
    """Return what makes the run's batches."""
    return BatchMaker(
        items=data.items,
        latents=latents,
        reader=caption_reader(settings, bundle.tokenizer),
        read_mask=masks.store.read if masks.store else None,
        seed=plan.seed,
        noise=NoiseRecipe(
            noise_offset=settings.noise_offset or 0.0,
            noise_offset_random_strength=settings.noise_offset_random_strength,
            adaptive_noise_scale=settings.adaptive_noise_scale or 0.0,
            multires_noise_iterations=settings.multires_noise_iterations or 0,
            multires_noise_discount=settings.multires_noise_discount,
            ip_noise_gamma=settings.ip_noise_gamma or 0.0,
            ip_noise_gamma_random_strength=settings.ip_noise_gamma_random_strength,
        ),
        min_timestep=settings.min_timestep,
        max_timestep=settings.max_timestep,
        max_train_steps=plan.total_steps,
        contexts=contexts,
    )


def caption_reader(settings: TrainingSettings, tokenizer: ClipTokenizer) -> CaptionReader:
    """Return how captions become tokens."""
    return CaptionReader(
        tokenizer=tokenizer,
        max_token_length=settings.max_token_length,
        weighted=settings.weighted_captions,
        cut_at_commas=settings.cut_at_commas,
    )


def build_stepper(settings: TrainingSettings, networks: Networks) -> Stepper:
    """Return what does the run's updates."""
    alphas_bar_T = alphas_cumprod(zero_terminal_snr=settings.zero_terminal_snr)
    return Stepper(
        accelerator=networks.accelerator,
        unet=networks.unet,
        encode_text=networks.encode_text,
        objective=Objective(
            prediction_type=networks.bundle.prediction_type,
            alphas_bar_T=alphas_bar_T.to(networks.accelerator.device),
            loss=LossRecipe(
                loss_type=settings.loss_type,
                huber_schedule=settings.huber_schedule,
                huber_c=settings.huber_c,
                huber_scale=settings.huber_scale,
                mean_over_mask=settings.masked_loss_mean == "mask",
            ),
            weights=WeightRecipe(
                min_snr_gamma=settings.min_snr_gamma,
                scale_v_pred_loss_like_noise_pred=settings.scale_v_pred_loss_like_noise_pred,
                v_pred_like_loss=settings.v_pred_like_loss,
                debiased_estimation_loss=settings.debiased_estimation_loss,
            ),
            input_dtype=networks.precision.weights,
        ),
        optimizer=networks.optimizer,
        parameters=networks.parameters,
        max_grad_norm=settings.max_grad_norm,
        synced_modules=networks.trained_modules,
        before_change=networks.before_change,
        looks_first=settings.on_bad_step == "skip",
        scaler=networks.scaler,
        rounding=networks.rounding,
        fused=networks.fused,
        saved_tensors=saved_tensors(settings, networks.accelerator.device),
        kernels=attention_kernels(settings, networks.accelerator.device),
        average=networks.average,
    )


def build_lr_factor(settings: TrainingSettings, total_steps: int) -> Factor:
    """Return the factor of the base learning rate by the number of updates done."""
    optimizer_arguments = parse_arguments(settings.optimizer_args, where="optimizer_args")
    if steps_are_relative(settings.optimizer_type, optimizer_arguments):
        return build_factor(
            "adafactor",
            total_steps=total_steps,
            warmup_init=bool(optimizer_arguments.get("warmup_init", False)),
        )
    if settings.optimizer_type.lower().endswith("schedulefree"):
        return build_factor("constant", total_steps=total_steps)
    if settings.lr_scheduler_type is not None:
        return custom_factor(
            settings.lr_scheduler_type,
            arguments=parse_arguments(settings.lr_scheduler_args, where="lr_scheduler_args"),
            base_lr=settings.learning_rate,
        )
    return build_factor(
        settings.lr_scheduler,
        total_steps=total_steps,
        warmup_steps=_steps(settings.lr_warmup_steps, total_steps),
        decay_steps=_steps(settings.lr_decay_steps, total_steps),
        num_cycles=settings.lr_scheduler_num_cycles,
        power=settings.lr_scheduler_power,
        timescale=settings.lr_scheduler_timescale,
        min_lr_ratio=settings.lr_scheduler_min_lr_ratio or 0.0,
        step_rules=_step_rules(settings.lr_scheduler_args),
        base_lr=settings.learning_rate,
    )


def _steps(steps_or_share: float, total_steps: int) -> int:
    """Return a number of steps; a value below 1 is a share of the run."""
    share = steps_or_share if steps_or_share < 1 else 0.0
    return int(share * total_steps) if share else int(steps_or_share)


def _step_rules(arguments: Sequence[str]) -> str:
    pairs = dict(text.partition("=")[::2] for text in arguments)
    return pairs.get("step_rules", "").strip("\"'")
