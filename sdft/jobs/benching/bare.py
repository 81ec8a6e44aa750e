"""The same arithmetic as a training step and nothing else: what the engine stands beside."""

from __future__ import annotations

import torch
from torch.nn.functional import mse_loss

from sdft.jobs.training.networks import Networks
from sdft.train.batch import Batch
from sdft.train.step import Stepper


class BareLoop:
    """U-Net, mean squared error, backward, clipping and the optimizer, on fixed tensors.

    Takes the networks and the optimizer of a Stepper, so that both do the same work.
    """

    def __init__(self, networks: Networks, stepper: Stepper, batch: Batch) -> None:
        assert stepper.rounding is None, "the bare loop has no rounding"
        assert stepper.fused is None, "the bare loop steps after the backward pass"
        device = networks.accelerator.device
        on_device = batch.to(device)
        alphas_bar_B = stepper.objective.alphas_bar_T[on_device.timesteps_B].view(-1, 1, 1, 1)
        self._unet = networks.unet
        self._optimizer = networks.plain_optimizer
        self._parameters = networks.parameters
        self._max_grad_norm = stepper.max_grad_norm
        self._noise_BCHW = on_device.noise_BCHW
        self._timesteps_B = on_device.timesteps_B
        assert on_device.contexts_BSD is not None
        self._contexts_BSD = on_device.contexts_BSD
        noisy_BCHW = (
            alphas_bar_B.sqrt() * on_device.latents_BCHW
            + (1 - alphas_bar_B).sqrt() * on_device.noise_BCHW
        )
        self._noisy_BCHW = noisy_BCHW.to(stepper.objective.input_dtype)

    def step(self, number: int) -> None:
        """Do one update; the number changes nothing."""
        predicted_BCHW = self._unet(
            self._noisy_BCHW, self._timesteps_B, self._contexts_BSD, return_dict=False
        )[0]
        torch.autograd.backward(mse_loss(predicted_BCHW.float(), self._noise_BCHW))
        if self._max_grad_norm > 0:
            torch.nn.utils.clip_grad_norm_(self._parameters, self._max_grad_norm)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
