"""The live networks of a run: what is trained, what is saved, what draws and measures.

In: networks that `preparing` has made. Out: their weights and the optimizer's state for files, and
back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor
from torch.nn import Module, Parameter

from sdft.jobs.training.sharding import gathered
from sdft.models.bundle import ModelBundle
from sdft.models.compiling import uncompiled
from sdft.models.digest import weights_fingerprint
from sdft.models.hypernetwork import Hypernetwork, RandomPasses
from sdft.models.sharding import reshard, spread_all
from sdft.models.text import encode_chunks, state_for, text_state_dict
from sdft.models.text_weights import weighted_contexts
from sdft.train.ema import MovingAverage, kept_aside
from sdft.train.fused_backward import FusedBackward
from sdft.train.optim import is_schedule_free, lay_out_states
from sdft.train.own_parts import OwnParts
from sdft.train.rounding import StochasticRounding
from sdft.train.scaler import LossScaler
from sdft.train.step import EncodeText


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainedPrecision:
    """In what the trained weights are kept, and how their updates are made."""

    weights: torch.dtype = torch.float32
    stochastic_rounding: bool = False
    """For bfloat16 weights."""
    scales_loss: bool = False
    """Here, not by accelerate; for gradients in fp16, or an optimizer that steps part by part."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AverageWishes:
    """How a moving average of the weights is kept."""

    decay: float
    on_cpu: bool


@dataclass(frozen=True, kw_only=True)
class Networks:
    """The networks of a run, on their device."""

    bundle: ModelBundle
    accelerator: Accelerator
    unet: Module
    """As `Accelerator.prepare` returned it."""
    text_encoder: Module
    """The same, where it is trained."""
    trains_text: bool
    optimizer: Any
    parameters: tuple[Parameter, ...]
    """Those that are trained."""
    encode_text: EncodeText
    precision: TrainedPrecision = TrainedPrecision()
    scaler: LossScaler | None = None
    rounding: StochasticRounding | None = None
    fused: FusedBackward | None = None
    average: MovingAverage | None = None
    hypernetwork: Hypernetwork | None = None
    """What is trained, where the U-Net and the text encoder stay as they are."""
    random_passes: RandomPasses | None = None
    """Of a hypernetwork with dropout."""
    own_parts: OwnParts | None = None
    """Where the weights are spread over the processes."""
    spread_from: str | None = None
    """Fingerprint of the first weights, where they have been spread over the processes since."""
    wait_for_copies: list[Callable[[], None]] = field(default_factory=list)
    """Called before anything changes the weights: copies of them may still be under way."""

    def before_change(self) -> None:
        for wait in self.wait_for_copies:
            wait()

    @property
    def plain_optimizer(self) -> Any:
        return getattr(self.optimizer, "optimizer", self.optimizer)

    @property
    def plain_unet(self) -> Any:
        return self.accelerator.unwrap_model(self.unet)

    @property
    def plain_text_encoder(self) -> Any:
        return self.accelerator.unwrap_model(self.text_encoder)

    def modules(self) -> dict[str, Module]:
        """Return the networks that a training step runs through, by name."""
        modules = {"unet": self.plain_unet, "text_encoder": self.plain_text_encoder}
        return modules | ({"hypernetwork": self.hypernetwork} if self.hypernetwork else {})

    @property
    def trained_modules(self) -> tuple[Module, ...]:
        if self.hypernetwork is not None:
            return (self.hypernetwork,)
        return (self.unet, self.text_encoder) if self.trains_text else (self.unet,)

    def trained_weights(self) -> dict[str, Mapping[str, Tensor]]:
        """Return the weights that training changes, by the file stem of their part of a state."""
        weights: dict[str, Mapping[str, Tensor]] = {}
        if self.hypernetwork is not None:
            weights["hypernetwork"] = self.hypernetwork.state_dict()
        else:
            weights["unet"] = self.plain_unet.state_dict()
        if self.trains_text:
            weights["text_encoder"] = text_state_dict(self.plain_text_encoder)
        if self.average is not None:
            weights["ema"] = self.average.tensors()
        return weights

    @property
    def gather(self) -> Callable[[Any], Any] | None:
        """What makes whole copies of spread tensors in main memory; all processes have to call it.

        None where each process holds everything.
        """
        if self.spread_from is None:
            return None
        return partial(gathered, keep=self.accelerator.is_main_process)

    def fingerprint(self) -> str:
        """Return what a run is known by again: its first weights. Nothing may be trained yet."""
        if self.spread_from is not None:
            return self.spread_from
        first: dict[str, Tensor] = self.plain_unet.state_dict()
        return weights_fingerprint(
            first | (self.hypernetwork.state_dict() if self.hypernetwork else {})
        )

    @property
    def saves_other_weights(self) -> bool:
        """Whether the weights to save and to draw with are others than those that are trained."""
        return self.average is not None or is_schedule_free(self.plain_optimizer)

    @contextmanager
    def evaluation_weights(self) -> Iterator[None]:
        """Hold the weights to save and to draw with, and then the trained ones to the bit.

        Those are the moving average, or what a schedule-free optimizer keeps for it; without
        either, nothing changes.
        """
        if self.saves_other_weights:
            self.before_change()
        if self.average is not None:
            with self.average.swapped_in():
                yield
        elif is_schedule_free(self.plain_optimizer):
            with kept_aside(self.parameters):
                with self._optimized_weights():
                    self.plain_optimizer.eval()
                try:
                    yield
                finally:
                    with self._optimized_weights():
                        self.plain_optimizer.train()
        else:
            yield

    @contextmanager
    def drawing(self) -> Iterator[None]:
        """Be ready to draw and to measure: the weights for it, a text encoder, nothing compiled."""
        parked = next(self.plain_text_encoder.parameters()).device
        if not self.trains_text:
            self.plain_text_encoder.to(self.accelerator.device)
        try:
            with uncompiled(), self.evaluation_weights():
                yield
        finally:
            if not self.trains_text:
                self.plain_text_encoder.to(parked)
            for network in self.modules().values():
                reshard(network)

    def park_text_encoder(self) -> None:
        """Keep the text encoder in main memory while nothing reads words."""
        if not self.trains_text:
            self.plain_text_encoder.to("cpu")

    def _optimized_weights(self) -> AbstractContextManager[None]:
        """Let the optimizer reach the weights outside of its steps."""
        return nullcontext() if self.rounding is None else self.rounding.live()

    def load_weights(self, stem: str, weights: Mapping[str, Tensor]) -> None:
        """Put weights of a state back; every one has to be there."""
        if stem == "text_encoder":
            _load(self.plain_text_encoder, state_for(self.plain_text_encoder, dict(weights)))
        elif stem == "ema":
            assert self.average is not None
            self.average.load(weights)
        elif stem == "hypernetwork":
            assert self.hypernetwork is not None
            self.hypernetwork.load_state_dict(weights)
        else:
            assert stem == "unet", stem
            _load(self.plain_unet, weights)

    def optimizer_state(self) -> dict[str, Any]:
        """Return the optimizer's state and what else its steps depend on."""
        values = self.optimizer.state_dict()
        state = {"optimizer": self.own_parts.joined_state(values) if self.own_parts else values}
        if self.scaler is not None:
            state["own_scaler"] = self.scaler.state_dict()
        if self.rounding is not None:
            state["rounding"] = {"num_steps": self.rounding.num_steps}
        if self.random_passes is not None:
            state["random_passes"] = {"num_passes": self.random_passes.num_passes}
        if self.accelerator.scaler is not None:
            state["scaler"] = self.accelerator.scaler.state_dict()
        return state

    def load_optimizer_state(self, state: Mapping[str, Any]) -> None:
        values = state["optimizer"]
        if self.own_parts is not None:
            values = self.own_parts.own_state(values)
        self.optimizer.load_state_dict(values)
        if self.rounding is None:
            lay_out_states(self.plain_optimizer)
        else:
            lay_out_states(self.plain_optimizer, self.rounding.real_of)
        if self.scaler is not None:
            self.scaler.load_state_dict(state["own_scaler"])
        if self.rounding is not None:
            self.rounding.num_steps = int(state["rounding"]["num_steps"])
        if self.random_passes is not None:
            self.random_passes.num_passes = int(state["random_passes"]["num_passes"])
        if self.accelerator.scaler is not None and "scaler" in state:
            self.accelerator.scaler.load_state_dict(state["scaler"])


def _load(network: Module, weights: Mapping[str, Tensor]) -> None:
    network.load_state_dict(spread_all(network.state_dict(), weights))


def text_reader(
    bundle: ModelBundle, text_encoder: Any, *, clip_skip: int | None, trains: bool
) -> EncodeText:
    """Return what turns token ids and perhaps their weights [B, K, 77] into contexts [B, S, D]."""

    def encode(ids_BKS: Tensor, weights_BKS: Tensor | None = None) -> Tensor:
        with nullcontext() if trains else torch.no_grad():
            contexts_BSD = encode_chunks(
                text_encoder, ids_BKS, clip_skip=clip_skip, tokenizer=bundle.tokenizer
            )
            if weights_BKS is None:
                return contexts_BSD
            return weighted_contexts(contexts_BSD, weights_BKS)

    return encode
