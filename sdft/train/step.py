"""One optimizer update: forward and backward over a step's micro-batches, clip, step.

B batch, C latent channels, H and W latent height and width, S tokens, D text width.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from accelerate import Accelerator
from torch import Tensor
from torch.nn import Module, Parameter

from sdft.train.batch import Batch
from sdft.train.ema import MovingAverage
from sdft.train.objective import LossRecipe, add_noise, item_losses, target_of
from sdft.train.optim import shown_rate, steps_one_by_one
from sdft.train.rounding import StochasticRounding
from sdft.train.scaler import LossScaler
from sdft.train.weighting import WeightRecipe, loss_weights


class EncodeText(Protocol):
    """Turns token ids [B, K, 77], and perhaps weights of the same shape, into contexts [B, S, D]."""

    def __call__(self, ids_BKS: Tensor, weights_BKS: Tensor | None = None) -> Tensor: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Objective:
    """What the network learns: the target, the noise schedule, and how losses are weighed."""

    prediction_type: str
    alphas_bar_T: Tensor
    """On the training device."""
    loss: LossRecipe
    weights: WeightRecipe
    input_dtype: torch.dtype = torch.float32
    """Of the noisy latents: that of the network's weights."""

    def losses(self, unet: Module, batch: Batch, contexts_BSD: Tensor) -> Tensor:
        """Return the weighted loss of each item; shape [B], float32."""
        alphas_bar_B = self.alphas_bar_T[batch.timesteps_B]
        noisy_BCHW = add_noise(batch.latents_BCHW, batch.input_noise_BCHW, alphas_bar_B)
        noisy_BCHW = noisy_BCHW.to(self.input_dtype)
        prediction_BCHW = unet(noisy_BCHW, batch.timesteps_B, contexts_BSD, return_dict=False)[0]
        target_BCHW = target_of(
            self.prediction_type, batch.latents_BCHW, batch.noise_BCHW, alphas_bar_B
        )
        losses_B = item_losses(
            prediction_BCHW,
            target_BCHW,
            batch.timesteps_B,
            alphas_bar_B,
            self.loss,
            batch.masks_BHW,
        )
        return losses_B * loss_weights(alphas_bar_B, self.prediction_type, self.weights)


@dataclass(frozen=True, slots=True, kw_only=True)
class StepOutcome:
    """Figures of one update, still on the device so that reading them does not hold it up."""

    loss: Tensor
    """Sum of the items' losses; a scalar."""
    grad_norm: Tensor | None
    """Of the whole gradient before clipping; none where clipping is off."""
    num_items: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Stepper:
    """Does updates of fixed modules with a fixed optimizer."""

    accelerator: Accelerator
    unet: Module
    """As `Accelerator.prepare` returned it."""
    encode_text: EncodeText
    objective: Objective
    optimizer: Any
    """As `Accelerator.prepare` returned it."""
    parameters: Sequence[Parameter]
    max_grad_norm: float
    """0 switches clipping off."""
    synced_modules: tuple[Module, ...]
    """The prepared modules that are trained; their gradients are exchanged once a step."""
    scaler: LossScaler | None = None
    """For fp16 gradients; accelerate's own scaler is off then."""
    rounding: StochasticRounding | None = None
    average: MovingAverage | None = None

    def update(self, batches: Sequence[Batch]) -> StepOutcome:
        """Do one update with the gradient of the weighted sum over all micro-batches.

        Each item's loss counts with the batch's own weight, so partial batches, accumulation and
        several processes give the gradient of one large batch.
        """
        device = self.accelerator.device
        total_loss = torch.zeros((), device=device)
        num_items = 0
        for position, host_batch in enumerate(batches):
            batch = host_batch.to(device)
            is_last = position == len(batches) - 1
            with self._gradient_exchange(now=is_last):
                contexts_BSD = self.encode_text(batch.ids_BKS, batch.word_weights_BKS)
                losses_B = self.objective.losses(self.unet, batch, contexts_BSD)
                # Gradients are averaged over the processes; the weights already hold the share.
                scale = self.accelerator.num_processes
                loss = (losses_B * batch.weights_B).sum() * scale
                self.accelerator.backward(self.scaler.scaled(loss) if self.scaler else loss)
            total_loss += losses_B.detach().sum()
            num_items += len(batch)
        grad_norm = self._apply()
        if self.average is not None:
            self.average.update()
        return StepOutcome(loss=total_loss, grad_norm=grad_norm, num_items=num_items)

    def _apply(self) -> Tensor | None:
        """Clip, step and forget the gradients; return their norm before clipping.

        Clipping comes after the last micro-batch, not in each: clipping partial sums would bound
        the update differently for every accumulation setting.
        """
        grad_norm = None
        finite = True
        if self.scaler is not None:
            grad_norm, finite = self.scaler.unscale_and_clip(self.parameters, self.max_grad_norm)
            self.scaler.update(finite=finite)
        elif self.max_grad_norm > 0:
            grad_norm = self.accelerator.clip_grad_norm_(self.parameters, self.max_grad_norm)
        if self.rounding is not None:
            plain = getattr(self.optimizer, "optimizer", self.optimizer)
            self.rounding.step(plain, one_by_one=steps_one_by_one(plain))
        elif finite:
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return grad_norm if self.max_grad_norm > 0 else None

    def set_lr(self, factor: float) -> float:
        """Set every group to its base rate times `factor`; return the first group's rate."""
        for group in self.optimizer.param_groups:
            group["lr"] = group["base_lr"] * factor
        return shown_rate(self.optimizer.param_groups[0])

    def _gradient_exchange(self, *, now: bool) -> contextlib.AbstractContextManager[Any]:
        if now:
            return contextlib.nullcontext()
        stack = contextlib.ExitStack()
        for module in self.synced_modules:
            stack.enter_context(self.accelerator.no_sync(module))
        return stack
