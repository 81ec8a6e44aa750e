"""The memory that training takes on its device, by part and at its worst moment.

In: sizes of networks, and how they are trained. Out: a MemoryPlan. The step is gone through on a
tape of tensors without numbers (`shadow`), in the order in which the engine does it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from types import MappingProxyType

from sdft.models.sizes import TextSizes, UNetSizes, VaeSizes
from sdft.planning.ledger import GRADIENTS, OPTIMIZER, PARTS, TEMPORARIES, WEIGHTS, Ledger, Storage
from sdft.planning.networks import UNetShadow, run_text_encoder
from sdft.planning.optimizers import OptimizerNeeds
from sdft.planning.shadow import FLOAT32, HALF, Tape, Tensor, Weight
from sdft.planning.vae import decode_latents, encode_images

CHUNK_VALUES = 1 << 24
"""Weights that a fused backward pass or states in main memory step at once; see train/chunks."""
ROUNDED_VALUES = 1 << 25
"""Weights that are float32 at once under stochastic rounding; see train/rounding."""
NOISE_BYTES = 4 + 2 + 2
"""For each value that is rounded: random bits, flags of finiteness, the result."""
LATENT_FACTOR = 8
LATENT_CHANNELS = 4
CLIP_HEAD_WIDTH = 64
GPU_WORKSPACE_BYTES = 64 << 20
"""What cuBLAS and cuDNN take for themselves from torch's memory; measured on an H100."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryQuestion:
    """What is trained and how. Sides in pixels."""

    unet: UNetSizes
    text: TextSizes
    heads_of: Callable[[int], int]
    optimizer: OptimizerNeeds
    batch_size: int
    width_px: int
    height_px: int
    tokens: int = 77
    """That the U-Net reads of a caption, begin and end included."""
    chunks: int = 1
    """So many times the text encoder runs for one caption."""
    on_gpu: bool = True
    half: bool = False
    """Whether products are computed in 16 bits."""
    half_weights: bool = False
    """Whether trained weights and gradients are kept in 16 bits."""
    stochastic_rounding: bool = False
    trains_text: bool = False
    text_on_device: bool = False
    """Whether a frozen text encoder reads words in each step."""
    vae: VaeSizes | None = None
    """Of one that encodes images in each step."""
    vae_itemsize: int = FLOAT32
    images_encoded_at_once: int = 1
    accumulates: bool = False
    exchanges: bool = False
    """Whether several processes exchange gradients from copies of them, as DDP does."""
    checkpoints: frozenset[str] = frozenset()
    """Blocks of the U-Net that compute their activations twice."""
    checkpoints_text: bool = False
    offloads_activations: bool = False
    fused_backward: bool = False
    states_on_cpu: bool = False
    average_on_device: bool = False
    channels_last: bool = False
    compiled: bool = False
    is_trained: Callable[[str, str], bool] = lambda network, name: True


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryPlan:
    """The most that is held at once, in bytes, and by what."""

    peak_bytes: int
    parts: Mapping[str, int]
    flops: int
    """Of one batch: forward, backward, and what is computed twice."""


def all_blocks(sizes: UNetSizes) -> frozenset[str]:
    """Return the names of a U-Net's blocks, as `checkpoint_blocks` knows them."""
    levels = range(len(sizes.widths))
    return frozenset(
        {"mid_block", *(f"{way}_blocks.{level}" for way in ("down", "up") for level in levels)}
    )


# What makes a run fit a card asks the same again and again, on its way to what is cheapest.
@lru_cache(maxsize=1024)
def plan_memory(question: MemoryQuestion) -> MemoryPlan:
    """Return the memory of one training step after the first."""
    step = _Step(question)
    step.go()
    ledger = step.ledger
    if question.on_gpu:
        ledger.at_peak[TEMPORARIES] += GPU_WORKSPACE_BYTES
        ledger.peak += GPU_WORKSPACE_BYTES
    return MemoryPlan(
        peak_bytes=ledger.peak,
        parts=MappingProxyType({part: ledger.at_peak[part] for part in PARTS}),
        flops=step.tape.flops,
    )


def plan_sampling(question: MemoryQuestion, vae: VaeSizes, width_px: int, height_px: int) -> int:
    """Return the bytes that are held while a picture is drawn between two steps, with guidance.

    The VAE comes to the device for it, in float32 unless it is there already.
    """
    step = _Step(question)
    tape, ledger = step.tape, step.ledger
    tape.records = False
    cells = (height_px // LATENT_FACTOR, width_px // LATENT_FACTOR)
    itemsize = HALF if question.half_weights else FLOAT32
    contexts = tape.new((2, question.tokens, question.text.width), itemsize)
    step.run_unet(tape.new((2, LATENT_CHANNELS, *cells), itemsize), contexts)
    tape.forget_casts()
    held = None
    if question.vae is None:
        held = Storage(ledger, WEIGHTS, sum(map(prod, vae.tensors().values())) * FLOAT32)
    decode_latents(
        tape,
        vae,
        (1, LATENT_CHANNELS, *cells),
        FLOAT32 if question.vae is None else question.vae_itemsize,
    )
    del contexts, held
    return ledger.peak + (GPU_WORKSPACE_BYTES if question.on_gpu else 0)


class _Step:
    """One update, gone through without numbers."""

    def __init__(self, question: MemoryQuestion) -> None:
        self.question = question
        self.ledger = Ledger()
        self.tape = Tape(
            self.ledger,
            half=question.half,
            norms_in_float32=question.on_gpu,
            fuses=question.compiled,
            offloads=question.offloads_activations,
            on_gradient=self._gradient_came,
        )
        self.unet = self._weights("unet", question.unet.tensors(), trained=True)
        self.text = self._weights("text_encoder", question.text.tensors(), question.trains_text)
        self.trained = [one for one in [*self.unet.values(), *self.text.values()] if one.is_trained]
        in_chunks = question.fused_backward or question.states_on_cpu
        self.chunks = _chunks(self.trained) if in_chunks else []
        self.chunk_of = {one: number for number, part in enumerate(self.chunks) for one in part}
        self.num_ready = [0] * len(self.chunks)
        self.standing = self._standing()

    def _weights(
        self, network: str, shapes: Mapping[str, tuple[int, ...]], trained: bool
    ) -> dict[str, Weight]:
        question = self.question
        kept = HALF if (question.half_weights if trained else question.half) else FLOAT32
        return {
            name: Weight(shape, kept, trained and question.is_trained(network, name))
            for name, shape in shapes.items()
        }

    def _standing(self) -> list[Storage]:
        """Return what is there all the time: weights, states, an average, a VAE."""
        question = self.question
        here = list(self.unet.values())
        if question.trains_text or question.text_on_device:
            here += self.text.values()
        held = [Storage(self.ledger, WEIGHTS, prod(one.shape) * one.itemsize) for one in here]
        if question.vae is not None:
            values = sum(map(prod, question.vae.tensors().values()))
            held.append(Storage(self.ledger, WEIGHTS, values * question.vae_itemsize))
        for one in self.trained:
            if question.exchanges:
                held.append(Storage(self.ledger, GRADIENTS, prod(one.shape) * one.itemsize))
            if question.average_on_device:
                held.append(Storage(self.ledger, WEIGHTS, prod(one.shape) * FLOAT32))
            if not question.states_on_cpu:
                held.append(Storage(self.ledger, OPTIMIZER, self._state_bytes(one)))
        return held

    def _state_bytes(self, weight: Weight) -> int:
        """Return a weight's state; it is in the weight's precision unless that is stood in for."""
        question = self.question
        stood_in = question.stochastic_rounding or question.fused_backward or question.states_on_cpu
        alike = question.half_weights and not stood_in and question.optimizer.follows_weights
        return question.optimizer.state_bytes(weight.shape) // (2 if alike else 1)

    def go(self) -> None:
        for _ in range(2 if self.question.accumulates else 1):
            self._passes()
        self._change()

    def _passes(self) -> None:
        question, tape = self.question, self.tape
        batch, tokens = question.batch_size, question.tokens
        side = (question.height_px // LATENT_FACTOR, question.width_px // LATENT_FACTOR)
        if question.vae is not None:
            images = (question.images_encoded_at_once, 3, question.height_px, question.width_px)
            encode_images(tape, question.vae, images, question.vae_itemsize)
        latents = tape.new((batch, LATENT_CHANNELS, *side), FLOAT32)
        noisy = tape.new(latents.shape, HALF if question.half_weights else FLOAT32)
        # Noise, target, squared differences and their gradients.
        loss = [tape.new(latents.shape, FLOAT32) for _ in range(4)]
        if question.trains_text:
            heads = max(1, question.text.width // CLIP_HEAD_WIDTH)
            contexts = run_text_encoder(
                tape,
                self.text,
                question.text,
                batch=batch * question.chunks,
                tokens=question.text.positions,
                heads=heads,
                checkpoints=question.checkpoints_text,
            )
            contexts = tape.view(contexts, (batch, tokens, question.text.width))
        else:
            width = question.text.width
            contexts = tape.new((batch, tokens, width), HALF if question.half else FLOAT32)
        prediction = self.run_unet(noisy, contexts)
        del contexts, noisy
        tape.forget_casts()
        gradient = tape.new(prediction.shape, prediction.itemsize, TEMPORARIES)
        tape.backward(prediction, gradient)
        del loss

    def run_unet(self, noisy: Tensor, contexts: Tensor) -> Tensor:
        question = self.question
        unet = UNetShadow(
            tape=self.tape,
            weights=self.unet,
            sizes=question.unet,
            heads_of=question.heads_of,
            checkpoints=question.checkpoints,
            channels_last=question.channels_last,
        )
        return unet(noisy, contexts)

    def _gradient_came(self, weight: Weight) -> None:
        """Step a chunk in the backward pass once all its gradients are there."""
        if not self.question.fused_backward:
            return
        number = self.chunk_of[weight]
        self.num_ready[number] += 1
        if self.num_ready[number] == len(self.chunks[number]):
            self._step_chunk(self.chunks[number])

    def _step_chunk(self, members: list[Weight]) -> None:
        """Hold a chunk's weights and gradients in float32, and what rounds them afterwards."""
        values = sum(prod(one.shape) for one in members)
        flat = [Storage(self.ledger, TEMPORARIES, values * FLOAT32) for _ in range(2)]
        for one in members:
            one.gradient = None
        question = self.question
        if question.states_on_cpu:
            state = sum(question.optimizer.state_bytes(one.shape) for one in members)
            # Those of the next chunk come while this one steps, those of the last one leave.
            self.ledger.touch(OPTIMIZER, 3 * state)
        self.ledger.touch(TEMPORARIES, self._step_bytes([values]))
        flat.pop()
        if question.half_weights and question.stochastic_rounding:
            self.ledger.touch(TEMPORARIES, values * NOISE_BYTES)

    def _change(self) -> None:
        """Do the optimizer's step on what the backward pass did not step."""
        question = self.question
        if question.fused_backward:
            return
        if question.states_on_cpu:
            for members in self.chunks:
                self._step_chunk(members)
        elif question.half_weights and question.stochastic_rounding:
            for part in _parts(self.trained, question.optimizer.one_by_one):
                self._step_rounded(part)
        else:
            sizes = [prod(one.shape) for one in self.trained]
            self.ledger.touch(TEMPORARIES, self._step_bytes(sizes))

    def _step_rounded(self, members: list[Weight]) -> None:
        """Hold weights and gradients of a part in float32, and round one weight after another."""
        flat = []
        for one in members:
            size = prod(one.shape) * FLOAT32
            flat += [Storage(self.ledger, TEMPORARIES, size) for _ in range(2)]
            one.gradient = None
        self.ledger.touch(TEMPORARIES, self._step_bytes([prod(one.shape) for one in members]))
        largest = max(prod(one.shape) for one in members)
        self.ledger.touch(TEMPORARIES, largest * NOISE_BYTES)
        del flat

    def _step_bytes(self, sizes: list[int]) -> int:
        """Return what the optimizer takes for a moment; `sizes` are values stepped as one each."""
        needs = self.question.optimizer
        single = needs.weight_copies + (0 if self.question.on_gpu else needs.cpu_weight_copies)
        return int(FLOAT32 * (needs.step_copies * sum(sizes) + single * max(sizes, default=0)))


def _chunks(weights: list[Weight]) -> list[list[Weight]]:
    """Return what is stepped together, the last weights first, as the engine makes it."""
    return _cut(list(reversed(weights)), CHUNK_VALUES)


def _parts(weights: list[Weight], one_by_one: bool) -> list[list[Weight]]:
    """Return the weights in parts that are float32 at once."""
    return _cut(weights, ROUNDED_VALUES) if one_by_one else [weights]


def _cut(weights: list[Weight], most_values: int) -> list[list[Weight]]:
    parts: list[list[Weight]] = []
    values = 0
    for one in weights:
        size = prod(one.shape)
        if not parts or values + size > most_values:
            parts.append([])
            values = 0
        parts[-1].append(one)
        values += size
    return parts
