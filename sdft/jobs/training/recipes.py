"""From settings to the engine's recipes: batches and updates."""

from __future__ import annotations

from functools import partial

from sdft.config.training import TrainingSettings
from sdft.formats.caption_reader import CaptionReader
from sdft.formats.clip_tokens import ClipTokenizer
from sdft.jobs.training.data import TrainingData
from sdft.jobs.training.device_use import attention_kernels
from sdft.jobs.training.masks import CachedMasks
from sdft.jobs.training.networks import Networks
from sdft.models.bundle import ModelBundle
from sdft.train.batch import BatchMaker
from sdft.train.contexts import Contexts
from sdft.train.exchange import average_gradients
from sdft.train.latents import LatentSource
from sdft.train.loop import RunPlan
from sdft.train.noise import NoiseRecipe
from sdft.train.objective import LossRecipe
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
    num_processes = networks.accelerator.num_processes
    exchange = None
    if networks.hypernetwork is not None and num_processes > 1:
        # It is no part of a prepared module: the U-Net calls it from within.
        exchange = partial(average_gradients, networks.parameters, num_processes=num_processes)
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
        parameters=networks.own_parts.parts if networks.own_parts else networks.parameters,
        max_grad_norm=settings.max_grad_norm,
        synced_modules=networks.trained_modules,
        before_change=networks.before_change,
        looks_first=settings.on_bad_step == "skip",
        scaler=networks.scaler,
        rounding=networks.rounding,
        own_parts=networks.own_parts,
        fused=networks.fused,
        kernels=attention_kernels(settings, networks.accelerator.device),
        average=networks.average,
        exchange_gradients=exchange,
    )
