"""What a planned run comes to on many GPUs: `sdft plan --gpus 64 --link 400Gb`.

In: settings, the model, the memory and computation of the largest bucket. Out: a ManyGpus.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import prod
from typing import Any

from sdft.config.training import TrainingSettings
from sdft.jobs.planning.asking import PlannedModel, Shape, Use, memory_question
from sdft.planning.cards import half_flops, seconds_a_step
from sdft.planning.ledger import OPTIMIZER
from sdft.planning.memory import MemoryPlan
from sdft.planning.scaling import SCHEMES, Links, OneGpu, ScalingPlan, plan_scaling

ASSUMED_CARD = "H100"
"""Where this machine has no card that is known: what many GPUs are rented as."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ManyGpus:
    """The plans for numbers of GPUs up to the one that was asked for."""

    card: str
    link: str
    batch_size: int
    """Of each GPU; the largest bucket's."""
    plans: tuple[ScalingPlan, ...]
    """The first is DDP, which is what `sdft train` does."""

    def as_json(self) -> dict[str, Any]:
        return {
            "card": self.card,
            "link": self.link,
            "batch_size": self.batch_size,
            "schemes": {one.scheme: [asdict(row) for row in one.rows] for one in self.plans},
        }


def plan_many(
    settings: TrainingSettings,
    model: PlannedModel,
    use: Use,
    plans: Mapping[Shape, MemoryPlan],
    *,
    card: str,
    gpus: int,
    link: str,
    links: Links,
) -> ManyGpus | None:
    """Return the plans; None where memory cannot be foreseen."""
    if not plans:
        return None
    shape, plan = next(iter(plans.items()))
    question = memory_question(settings, model, use, shape)
    assert question is not None, "its memory was foreseen"
    name = card if half_flops(card) is not None else ASSUMED_CARD
    seconds = seconds_a_step(
        name, plan.flops, half=settings.mixed_precision != "no", compiled=settings.torch_compile
    )
    assert seconds is not None, "the speed of this card is known"
    networks = {"unet": model.sizes.unet.tensors()}
    if settings.train_text_encoder:
        networks["text_encoder"] = model.sizes.text_encoder.tensors()
    num_trained = sum(
        prod(tensor)
        for network, tensors in networks.items()
        for name, tensor in tensors.items()
        if question.is_trained(network, name)
    )
    num_bytes = num_trained * (2 if question.half_weights else 4)
    one = OneGpu(
        # The share of a card's speed that a step reaches was measured with the optimizer in it.
        compute_s=seconds * settings.gradient_accumulation_steps,
        optimizer_s=0.0,
        weight_bytes=num_bytes,
        gradient_bytes=num_bytes,
        state_bytes=plan.parts[OPTIMIZER],
    )
    counts = [2**power for power in range(gpus.bit_length()) if 2**power < gpus] + [gpus]
    return ManyGpus(
        card=name,
        link=link,
        batch_size=shape.batch_size,
        plans=tuple(plan_scaling(one, links, scheme, counts) for scheme in SCHEMES),
    )
