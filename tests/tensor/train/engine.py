"""Pieces of the engine for its tests: a batch with everything fixed, a stepper, a plain loss."""

from __future__ import annotations

import copy
import dataclasses

import torch
from accelerate import Accelerator
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler

from sdft.models.text import encode_chunks
from sdft.models.text_weights import weighted_contexts
from sdft.train.batch import Batch
from sdft.train.objective import EPSILON, V_PREDICTION, LossRecipe
from sdft.train.schedule import alphas_cumprod
from sdft.train.step import Objective, Stepper
from sdft.train.weighting import WeightRecipe

BATCH = 4

CAPTIONS = ("a cat", "a red square, on grass", "", "two dogs")


class KeptGradients(torch.optim.Optimizer):
    """Changes nothing and keeps the gradients that it was given."""

    def __init__(self, groups, lr=1.0):
        super().__init__(groups, {"lr": lr})
        self.gradients = []

    def step(self, closure=None):
        for group in self.param_groups:
            self.gradients += [
                None if weight.grad is None else weight.grad.clone() for weight in group["params"]
            ]


def fixed_batch(bundle, *, seed=7, side=16, **extras):
    """Return a batch whose latents, noise, timesteps and captions do not depend on our code.

    Below 16 x 16 the toy's lowest level is 1 x 1, where group norm is a sign and gradients are
    rounding errors made large.
    """
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(BATCH, 4, side, side, generator=generator)
    return Batch(
        latents_BCHW=torch.randn(BATCH, 4, side, side, generator=generator),
        noise_BCHW=noise,
        input_noise_BCHW=noise,
        timesteps_B=torch.tensor([3, 250, 600, 999]),
        ids_BKS=torch.tensor([bundle.tokenizer.chunks(text, 75) for text in CAPTIONS]),
        weights_B=torch.full((BATCH,), 1 / BATCH),
        **extras,
    )


def with_small_unet(bundle, seed=3):
    """Return the bundle with a U-Net of two levels: for tests that make many steps."""
    config = dict(bundle.unet.config) | {
        "block_out_channels": (32, 64),
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
        "layers_per_block": 1,
        "attention_head_dim": 1,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        unet = UNet2DConditionModel.from_config(config)
    return dataclasses.replace(bundle, networks=dict(bundle.networks) | {"unet": unet})


def part_of(batch, start, stop):
    values = {name: getattr(batch, name) for name in batch.__slots__}
    cut = {n: v[start:stop] if isinstance(v, torch.Tensor) else v for n, v in values.items()}
    return Batch(**cut)


def text_reader(bundle):
    def encode_text(ids_BKS, weights_BKS=None):
        with torch.no_grad():
            contexts = encode_chunks(
                bundle.text_encoder, ids_BKS, clip_skip=None, tokenizer=bundle.tokenizer
            )
            return contexts if weights_BKS is None else weighted_contexts(contexts, weights_BKS)

    return encode_text


def stepper_of(
    bundle,
    *,
    optimizer=torch.optim.SGD,
    prediction_type=EPSILON,
    loss=None,
    weights=None,
    lr=0.5,
    clip=0.0,
    zero_terminal_snr=False,
    **parts,
):
    """Return a stepper over a copy of the bundle's U-Net."""
    unet = copy.deepcopy(bundle.unet).train().requires_grad_(True)
    parameters = list(unet.parameters())
    return Stepper(
        accelerator=Accelerator(cpu=True),
        unet=unet,
        encode_text=text_reader(bundle),
        objective=Objective(
            prediction_type=prediction_type,
            alphas_bar_T=alphas_cumprod(zero_terminal_snr=zero_terminal_snr),
            loss=loss or LossRecipe(),
            weights=weights or WeightRecipe(),
        ),
        optimizer=optimizer([{"params": parameters, "lr": lr, "base_lr": lr}], lr=lr),
        parameters=parameters,
        max_grad_norm=clip,
        synced_modules=(unet,),
        **parts,
    )


def plain_losses(
    bundle,
    unet,
    batch,
    *,
    prediction_type=EPSILON,
    elementwise=lambda difference, timesteps, scheduler: difference**2,
    weight=torch.ones_like,
    zero_terminal_snr=False,
):
    """Return each item's loss by diffusers' scheduler and torch's functions alone."""
    scheduler = DDPMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        num_train_timesteps=1000,
        rescale_betas_zero_snr=zero_terminal_snr,
    )
    with torch.no_grad():
        contexts = bundle.text_encoder(batch.ids_BKS[:, 0]).last_hidden_state
    noisy = scheduler.add_noise(batch.latents_BCHW, batch.input_noise_BCHW, batch.timesteps_B)
    target = batch.noise_BCHW
    if prediction_type == V_PREDICTION:
        target = scheduler.get_velocity(batch.latents_BCHW, batch.noise_BCHW, batch.timesteps_B)
    predicted = unet(noisy, batch.timesteps_B, encoder_hidden_states=contexts).sample
    losses = elementwise(predicted - target, batch.timesteps_B, scheduler).mean([1, 2, 3])
    alphas = scheduler.alphas_cumprod[batch.timesteps_B]
    return losses * weight(alphas / (1 - alphas))
