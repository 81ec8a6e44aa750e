"""One optimizer update: forward and backward over a step's micro-batches, clip, step.

B batch, C latent channels, H and W latent height and width, S tokens, D text width.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor
from torch.nn import Module, Parameter

from sdft.errors import EnvironmentFault
from sdft.train.batch import Batch
from sdft.train.ema import MovingAverage
from sdft.train.fused_backward import FusedBackward
from sdft.train.objective import LossRecipe, add_noise, item_losses, target_of
from sdft.train.optim import shown_rate, steps_one_by_one
from sdft.train.out_of_memory import is_out_of_memory, memory_fault
from sdft.train.own_parts import OwnParts
from sdft.train.rounding import StochasticRounding
from sdft.train.scaler import LossScaler
from sdft.train.weighting import WeightRecipe, loss_weights


class EncodeText(Protocol):
    """Turns ids [B, K, 77], and perhaps weights of the same shape, into contexts [B, S, D]."""

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
    """Sum of the items' losses over all processes; a scalar."""
    grad_norm: Tensor | None
    """Of the whole gradient before clipping; none where clipping is off, unless the weights were
    changed in the backward pass."""
    losses_finite: Tensor | None = None
    """Of each item, in the step's order; shape [N]. With several processes only where the step was
    left out."""
    contexts_finite: Tensor | None = None
    """Whether the text encoder gave numbers for each item; shape [N]."""
    applied: bool = True
    """Whether the weights were changed; not where the figures are no numbers and were looked at."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Finite:
    """Which items of a micro-batch have numbers; shapes [B]. None where it is only filling."""

    losses_B: Tensor | None = None
    contexts_B: Tensor | None = None

    @classmethod
    def of(cls, losses_B: Tensor, contexts_BSD: Tensor) -> _Finite:
        return cls(
            losses_B=torch.isfinite(losses_B),
            contexts_B=torch.isfinite(contexts_BSD).flatten(1).all(dim=1),
        )

    def on_cpu(self) -> _Finite:
        if self.losses_B is None or self.contexts_B is None:
            return self
        return _Finite(losses_B=self.losses_B.cpu(), contexts_B=self.contexts_B.cpu())


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
    """Those that the optimizer changes; of weights that are spread, this process' parts."""
    max_grad_norm: float
    """0 switches clipping off."""
    synced_modules: tuple[Module, ...]
    """The prepared modules that are trained; their gradients are exchanged once a step."""
    scaler: LossScaler | None = None
    """For fp16 gradients; accelerate's own scaler is off then."""
    rounding: StochasticRounding | None = None
    own_parts: OwnParts | None = None
    """Where the weights are spread over the processes."""
    fused: FusedBackward | None = None
    """Changes the weights in the backward pass already."""
    average: MovingAverage | None = None
    kernels: Callable[[], contextlib.AbstractContextManager[Any]] = contextlib.nullcontext
    """Surrounds both passes: says which kernels are preferred."""
    before_change: Callable[[], None] = lambda: None
    """Called before the weights change: copies of them may still be under way."""
    exchange_gradients: Callable[[], None] | None = None
    """Averages the gradients over the processes, where no prepared module does it by itself."""
    looks_first: bool = False
    """Leave an update out whose loss or gradient is no number; waits for the device in each step.

    On a CPU, where there is nothing to wait for, this is always so.
    """

    def update(self, batches: Sequence[Batch]) -> StepOutcome:
        """Do one update with the gradient of the weighted sum over all micro-batches.

        Each item's loss counts with the batch's own weight, so partial batches, accumulation and
        several processes give the gradient of one large batch.
        """
        device = self.accelerator.device
        total_loss = torch.zeros((), device=device)
        finite: list[_Finite] = []
        num_items = 0
        assert self.fused is None or len(batches) == 1, "a weight would be changed twice a step"
        for position, host_batch in enumerate(batches):
            batch = host_batch.to(device)
            is_last = position == len(batches) - 1
            with self._gradient_exchange(now=is_last):
                contexts_BSD = self._contexts(batch)
                # The backward pass may compute parts of the forward pass again: with the same
                # kernels, or their tensors would not fit.
                with self.kernels():
                    losses_B = self.objective.losses(self.unet, batch, contexts_BSD)
                    # Gradients are averaged over the processes; the weights hold the share.
                    scale = self.accelerator.num_processes
                    self._backward((losses_B * batch.weights_B).sum() * scale, len(host_batch))
            # What counts 0 stands for nothing: an image that cannot be read, or no image at all.
            total_loss += (losses_B.detach() * (batch.weights_B > 0)).sum()
            if not host_batch.is_filling:
                finite.append(_Finite.of(losses_B.detach(), contexts_BSD.detach()))
            else:
                finite.append(_Finite())
            num_items += int((host_batch.weights_B > 0).sum())
        if self.exchange_gradients is not None:
            self.exchange_gradients()
        if self.accelerator.num_processes > 1:
            # In each step and not when it is read: processes read at different times.
            total_loss = self.accelerator.reduce(total_loss, reduction="sum")
        self.before_change()
        with self._no_second_try(num_items):
            grad_norm, applied = self._apply(total_loss)
        if self.average is not None and applied:
            self.average.update()
        losses_finite, contexts_finite = self._finite_of_all(finite, applied=applied)
        return StepOutcome(
            loss=total_loss,
            grad_norm=grad_norm,
            losses_finite=losses_finite,
            contexts_finite=contexts_finite,
            applied=applied,
        )

    def _finite_of_all(
        self, finite: Sequence[_Finite], *, applied: bool
    ) -> tuple[Tensor | None, Tensor | None]:
        """Return which items' losses and contexts are numbers, in the step's order."""
        if self.accelerator.num_processes > 1:
            if applied:
                return None, None
            # All processes know that the step was left out, so all come here.
            by_process = gather_object([[one.on_cpu() for one in finite]])
            finite = [one for turn in zip(*by_process, strict=True) for one in turn]
        losses = [one.losses_B for one in finite if one.losses_B is not None]
        contexts = [one.contexts_B for one in finite if one.contexts_B is not None]
        return (torch.cat(losses), torch.cat(contexts)) if losses else (None, None)

    def _backward(self, loss: Tensor, num_items: int) -> None:
        if self.fused is None:
            self.accelerator.backward(self.scaler.scaled(loss) if self.scaler else loss)
            return
        self.before_change()
        with self._no_second_try(num_items, where="the backward pass"):
            self.accelerator.backward(loss)

    @contextlib.contextmanager
    def _no_second_try(
        self, num_items: int, *, where: str = "the optimizer's step"
    ) -> Iterator[None]:
        """Where memory runs out here, some weights may be changed already: the run ends."""
        try:
            yield
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise self.memory_fault(where, num_items) from error

    def memory_fault(self, where: str, micro_batch: int) -> EnvironmentFault:
        """Return the error that says what would free memory."""
        return memory_fault(
            where=where,
            parameters=self.parameters,
            # Not its `state_dict`, which holds what lies in main memory too.
            optimizer_state=self.optimizer.state,
            micro_batch=micro_batch,
            device=self.accelerator.device,
            holds_gradients=self.fused is None,
        )

    def _contexts(self, batch: Batch) -> Tensor:
        if batch.contexts_BSD is not None:
            return batch.contexts_BSD
        return self.encode_text(batch.ids_BKS, batch.word_weights_BKS)

    def _apply(self, loss: Tensor) -> tuple[Tensor | None, bool]:
        """Clip, step and forget the gradients.

        Return their norm before clipping, and whether the weights were changed.

        Clipping comes after the last micro-batch, not in each: clipping partial sums would bound
        the update differently for every accumulation setting.
        """
        if self.fused is not None:
            grad_norm = self.fused.finish()
            # Whether the figures are numbers is found when they are read; it is too late here.
            return grad_norm, True
        grad_norm = None
        finite = True
        if self.own_parts is not None:
            self.own_parts.take_gradients()
        if self.scaler is not None:
            grad_norm, finite = self.scaler.unscale_and_clip(self.parameters, self.max_grad_norm)
            self.scaler.update(finite=finite)
        elif self.max_grad_norm > 0 and self.own_parts is not None:
            grad_norm = self.own_parts.clip(self.max_grad_norm)
        elif self.max_grad_norm > 0:
            grad_norm = self.accelerator.clip_grad_norm_(self.parameters, self.max_grad_norm)
        looks = self.looks_first or self.accelerator.device.type == "cpu"
        bad = looks and not self._is_finite(loss, grad_norm)
        # accelerate's scaler leaves such a step out by itself, and has to see it to be renewed.
        if finite and (not bad or self.accelerator.scaler is not None):
            self._step_optimizer()
        self.optimizer.zero_grad(set_to_none=True)
        if self.rounding is not None:
            # The optimizer knows only stand-ins of the weights.
            for one in self.parameters:
                one.grad = None
        return grad_norm if self.max_grad_norm > 0 else None, not bad

    def _step_optimizer(self) -> None:
        if self.rounding is None:
            self.optimizer.step()
            return
        plain = getattr(self.optimizer, "optimizer", self.optimizer)
        self.rounding.step(plain, one_by_one=steps_one_by_one(plain))

    def _is_finite(self, loss: Tensor, grad_norm: Tensor | None) -> bool:
        """Tell, alike in all processes, whether a step's figures are numbers.

        A gradient that overflows is nothing unusual where the loss is scaled, and the scaler
        leaves it out by itself.
        """
        bad = (~torch.isfinite(loss)).float()
        if self.scaler is None and self.accelerator.scaler is None:
            if grad_norm is None:
                norms = [torch.linalg.vector_norm(one) for one in self._gradients()]
                grad_norm = torch.linalg.vector_norm(torch.stack(norms)) if norms else loss
            bad = bad + (~torch.isfinite(grad_norm)).float()
        if self.accelerator.num_processes > 1:
            bad = self.accelerator.reduce(bad, reduction="sum")
        return not bool(bad)

    def _gradients(self) -> list[Tensor]:
        return [one.grad for one in self.parameters if one.grad is not None]

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
