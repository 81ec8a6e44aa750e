"""From settings to the question how much memory they take.

In: settings, the sizes of the model, a bucket. Out: a MemoryQuestion.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.util import find_spec

from sdft.config.training import TrainingSettings
from sdft.models.family import Family
from sdft.models.published import ModelSizes
from sdft.planning.memory import MemoryQuestion, all_blocks
from sdft.planning.optimizers import OptimizerNeeds, needs_of
from sdft.planning.shadow import FLOAT32, HALF
from sdft.train.optimizer_words import STAND_INS
from sdft.train.parts import TEXT_ENCODER, UNET, RateWishes, rates_of

TOKENS_A_CHUNK = 75


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedModel:
    """What of a model decides its memory."""

    family: Family
    sizes: ModelSizes


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """What a run does in each step, beside what its settings say."""

    on_gpu: bool
    reads_words: bool
    """Whether a frozen text encoder runs in each step."""
    encodes_images: bool
    """Whether the VAE runs in each step."""
    has_bitsandbytes: bool = True
    num_processes: int = 1


@dataclass(frozen=True, slots=True, order=True)
class Shape:
    """What a batch of one bucket is like."""

    width_px: int
    height_px: int
    batch_size: int


@dataclass(frozen=True, slots=True)
class Trained:
    """Tells whether a weight of a network is trained; equal to another of the same names."""

    names: frozenset[str]

    def __call__(self, network: str, name: str) -> bool:
        return (UNET if network == "unet" else TEXT_ENCODER) + _short(name) in self.names


def has_bitsandbytes() -> bool:
    """Tell whether 8-bit optimizers can be had here."""
    return find_spec("bitsandbytes") is not None


def optimizer_needs(settings: TrainingSettings, use: Use) -> OptimizerNeeds | None:
    """Return the memory of the optimizer that will run, none for a class of somebody else's."""
    by_lower = {name.lower(): stand_in for name, stand_in in STAND_INS.items()}
    name = settings.optimizer_type
    if not use.has_bitsandbytes:
        name = by_lower.get(name.lower(), name).rpartition(".")[2]
    return needs_of(name)


def memory_question(
    settings: TrainingSettings, model: PlannedModel, use: Use, shape: Shape
) -> MemoryQuestion | None:
    """Return the question for batches of one bucket.

    None where the formulas do not know: a hypernetwork, an optimizer of somebody else's, weights
    that are spread over several processes.

    Raises: ConfigError for a pattern of weights that fits nothing.
    """
    optimizer = optimizer_needs(settings, use)
    if optimizer is None or settings.hypernetwork or settings.fsdp:
        return None
    sizes = model.sizes
    chunks = settings.max_token_length // TOKENS_A_CHUNK
    checkpoints: frozenset[str] = frozenset()
    if settings.gradient_checkpointing or settings.checkpoint_blocks:
        checkpoints = frozenset(settings.checkpoint_blocks) or all_blocks(sizes.unet)
    half = settings.mixed_precision != "no" and (use.on_gpu or settings.mixed_precision == "bf16")
    return MemoryQuestion(
        unet=sizes.unet,
        text=sizes.text_encoder,
        heads_of=model.family.heads_of,
        optimizer=optimizer,
        batch_size=shape.batch_size,
        width_px=shape.width_px,
        height_px=shape.height_px,
        tokens=TOKENS_A_CHUNK * chunks + 2,
        chunks=chunks,
        on_gpu=use.on_gpu,
        half=half,
        half_weights=half and (settings.full_bf16 or settings.full_fp16),
        stochastic_rounding=settings.full_bf16 and settings.stochastic_rounding,
        trains_text=settings.train_text_encoder,
        text_on_device=use.reads_words,
        vae=sizes.vae if use.encodes_images else None,
        vae_itemsize=FLOAT32 if settings.no_half_vae or not half else HALF,
        images_encoded_at_once=min(settings.vae_batch_size, shape.batch_size),
        accumulates=settings.gradient_accumulation_steps > 1,
        exchanges=use.num_processes > 1 and not settings.ddp_gradient_as_bucket_view,
        checkpoints=checkpoints,
        checkpoints_text=bool(checkpoints),
        offloads_activations=settings.cpu_offload_checkpointing and use.on_gpu,
        fused_backward=settings.fused_backward_pass,
        states_on_cpu=settings.optimizer_states_on_cpu and use.on_gpu,
        average_on_device=settings.ema and (settings.ema_device != "cpu" or not use.on_gpu),
        channels_last=use.on_gpu if settings.channels_last is None else settings.channels_last,
        compiled=settings.torch_compile and use.on_gpu,
        is_trained=_trained(settings, sizes),
    )


def with_shape(question: MemoryQuestion, shape: Shape) -> MemoryQuestion:
    """Return the same question about another bucket."""
    return replace(
        question,
        batch_size=shape.batch_size,
        width_px=shape.width_px,
        height_px=shape.height_px,
    )


def _trained(settings: TrainingSettings, sizes: ModelSizes) -> Callable[[str, str], bool]:
    """Return what tells whether a weight of a network is trained."""
    wishes = RateWishes(
        freeze=settings.freeze,
        by_name=tuple(
            (pattern, float(rate))
            for pattern, _, rate in (entry.rpartition("=") for entry in settings.lr_by_name)
        ),
        by_block=settings.block_lr,
    )
    if not wishes.any and not settings.train_text_encoder:
        return _everything
    names = [UNET + name for name in sizes.unet.tensors()]
    if settings.train_text_encoder:
        names += [TEXT_ENCODER + _short(name) for name in sizes.text_encoder.tensors()]
    base = {UNET: settings.learning_rate, TEXT_ENCODER: settings.learning_rate}
    if settings.learning_rate_te is not None:
        base[TEXT_ENCODER] = settings.learning_rate_te
    rates = rates_of(names, base_rates=base, wishes=wishes)
    trained = frozenset(name for name, rate in rates.items() if rate)
    # A rate of 0 for everything trains nothing, but holds gradients and states all the same.
    return Trained(trained) if trained else _everything


def _everything(network: str, name: str) -> bool:
    return True


def _short(name: str) -> str:
    return name.removeprefix("text_model.")
