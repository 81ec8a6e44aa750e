"""Prepares the networks of a run: what is trained, with which optimizer, on which device.

In: a loaded bundle and the accelerator. Out: Networks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor
from torch.nn import Module, Parameter

from sdft.events import Emit
from sdft.jobs.training.chunking import ChunkWishes, chunked_optimizer, fused_backward
from sdft.jobs.training.device_use import DeviceUse, use_device
from sdft.jobs.training.groups import named_weights, parameter_groups
from sdft.models.bundle import ModelBundle
from sdft.models.compiling import uncompiled
from sdft.models.hypernetwork import Hypernetwork, RandomPasses
from sdft.models.text import encode_chunks, state_for, text_state_dict
from sdft.models.text_weights import weighted_contexts
from sdft.train.ema import MovingAverage, kept_aside
from sdft.train.fused_backward import FusedBackward
from sdft.train.optim import build_optimizer, is_schedule_free, lay_out_states
from sdft.train.parts import RateWishes
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

    def first_weights(self) -> dict[str, Tensor]:
        """Return what a run begins with, by which it is known again; nothing is trained yet."""
        first: dict[str, Tensor] = self.plain_unet.state_dict()
        return first | (self.hypernetwork.state_dict() if self.hypernetwork else {})

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
        self.plain_text_encoder.to(self.accelerator.device)
        try:
            with uncompiled(), self.evaluation_weights():
                yield
        finally:
            self.plain_text_encoder.to(parked)

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
            self.plain_text_encoder.load_state_dict(
                state_for(self.plain_text_encoder, dict(weights))
            )
        elif stem == "ema":
            assert self.average is not None
            self.average.load(weights)
        elif stem == "hypernetwork":
            assert self.hypernetwork is not None
            self.hypernetwork.load_state_dict(weights)
        else:
            assert stem == "unet", stem
            self.plain_unet.load_state_dict(weights)

    def optimizer_state(self) -> dict[str, Any]:
        """Return the optimizer's state and what else its steps depend on."""
        state = {"optimizer": self.optimizer.state_dict()}
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
        self.optimizer.load_state_dict(state["optimizer"])
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


_NO_WISHES = RateWishes()
_FLOAT32 = TrainedPrecision()
_NO_CHUNKS = ChunkWishes()
_PLAIN_USE = DeviceUse()


def prepare_networks(
    bundle: ModelBundle,
    accelerator: Accelerator,
    *,
    train_text_encoder: bool,
    learning_rate: float,
    learning_rate_te: float | None,
    optimizer_type: str,
    optimizer_arguments: Mapping[str, Any],
    clip_skip: int | None,
    frozen_dtype: torch.dtype,
    emit: Emit,
    wishes: RateWishes = _NO_WISHES,
    precision: TrainedPrecision = _FLOAT32,
    average: AverageWishes | None = None,
    chunks: ChunkWishes = _NO_CHUNKS,
    use: DeviceUse = _PLAIN_USE,
    seed: int = 0,
) -> Networks:
    """Put the U-Net and the text encoder on the device and give them an optimizer.

    A network that is trained, frozen parts of it included, gets the dtype that `precision` asks
    for; one that is not becomes `frozen_dtype`. `seed` is that of stochastic rounding.

    Raises: what `parameter_groups` and `build_optimizer` raise.
    """
    unet = bundle.unet.train().requires_grad_(True)
    text_encoder = bundle.text_encoder.requires_grad_(train_text_encoder)
    # Before the optimizer is made: its state follows device and dtype of the weights.
    text_dtype = precision.weights if train_text_encoder else frozen_dtype
    text_encoder.train(train_text_encoder)
    for module, dtype in ((unet, precision.weights), (text_encoder, text_dtype)):
        # diffusers' own `to` warns of every change of dtype.
        Module.to(module, accelerator.device, dtype)
    groups = parameter_groups(
        unet,
        text_encoder if train_text_encoder else None,
        learning_rate=learning_rate,
        learning_rate_te=learning_rate_te,
        wishes=wishes,
        clip_skip=clip_skip,
        optimizer_type=optimizer_type,
        emit=emit,
    )
    parameters = tuple(weight for group in groups for weight in group["params"])
    use_device(unet, text_encoder if train_text_encoder else None, use)
    optimizer, rounding, fused = make_optimizer(
        optimizer_type,
        groups,
        parameters,
        lr=learning_rate,
        arguments=optimizer_arguments,
        stochastic_rounding=precision.stochastic_rounding,
        chunks=chunks,
        seed=seed,
        emit=emit,
    )
    trained: Sequence[Module] = (unet, text_encoder) if train_text_encoder else (unet,)
    # One in chunks is no optimizer of torch's, and passes through as it is.
    *prepared, optimizer = accelerator.prepare(*trained, optimizer)
    live_text_encoder = prepared[1] if train_text_encoder else text_encoder
    return Networks(
        bundle=bundle,
        accelerator=accelerator,
        unet=prepared[0],
        text_encoder=live_text_encoder,
        trains_text=train_text_encoder,
        optimizer=optimizer,
        parameters=parameters,
        encode_text=text_reader(
            bundle, live_text_encoder, clip_skip=clip_skip, trains=train_text_encoder
        ),
        precision=precision,
        scaler=LossScaler() if precision.scales_loss else None,
        rounding=rounding,
        fused=fused,
        average=make_average(
            average,
            named_weights(unet, text_encoder if train_text_encoder else None),
            accelerator,
        ),
    )


def make_optimizer(
    name: str,
    groups: list[dict[str, Any]],
    parameters: Sequence[Parameter],
    *,
    lr: float,
    arguments: Mapping[str, Any],
    stochastic_rounding: bool,
    chunks: ChunkWishes,
    seed: int,
    emit: Emit,
) -> tuple[Any, StochasticRounding | None, FusedBackward | None]:
    """Return the optimizer, and what rounds its updates or steps it in the backward pass."""
    if chunks.any:
        chunked = chunked_optimizer(
            name,
            groups,
            lr=lr,
            arguments=arguments,
            wishes=chunks,
            rounding_seed=seed if stochastic_rounding else None,
            emit=emit,
        )
        return chunked, None, fused_backward(chunked, chunks, emit)
    rounding = None
    if stochastic_rounding:
        rounding = StochasticRounding(parameters, seed=seed)
        groups = rounding.groups(groups)
    return build_optimizer(name, groups, lr=lr, arguments=arguments, emit=emit), rounding, None


def make_average(
    wishes: AverageWishes | None, named: Mapping[str, Parameter], accelerator: Accelerator
) -> MovingAverage | None:
    """Return what averages those of the named weights that are trained, if it was asked for."""
    if wishes is None:
        return None
    trained = {name: weight for name, weight in named.items() if weight.requires_grad}
    device = torch.device("cpu") if wishes.on_cpu else accelerator.device
    return MovingAverage(trained, decay=wishes.decay, device=device)


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
